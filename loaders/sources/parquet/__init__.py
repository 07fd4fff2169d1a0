"""Images inside Parquet files, as Hugging Face's hub stores them, with random access by row."""
