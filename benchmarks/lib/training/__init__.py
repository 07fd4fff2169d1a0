"""Training throughput: feeds, steps and their tables."""
