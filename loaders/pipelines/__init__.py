"""How images move from source through decoder and renderer into batches."""
