"""Training submitted to SLURM: still to come, nothing here can be used yet."""
