"""Submit training and data preparation to SLURM, or run the same jobs on this machine."""
