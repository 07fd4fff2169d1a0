"""Training on SLURM, or on this machine as if it were there: submit.py queues, status.py looks."""
