"""SLURM's commands, the batch script and the queue."""
