"""SLURM: its commands, the batch script, the queue."""
