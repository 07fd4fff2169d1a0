"""Lists of image files with labels: in a CSV, TSV, JSONL or Parquet file, or in memory."""
