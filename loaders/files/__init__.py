"""Read and write files that other processes may read, write, truncate or replace."""
