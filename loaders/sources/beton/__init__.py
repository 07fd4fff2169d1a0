"""FFCV's .beton files, read and written without FFCV."""
