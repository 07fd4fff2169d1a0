"""Tuning: the workers and the batches ahead that suit a machine, measured while a loader runs."""
