"""Data preparation as an array of SLURM tasks."""
