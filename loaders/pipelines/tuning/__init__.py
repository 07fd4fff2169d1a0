"""Tuning: choose workers and batches ahead for a machine, from measurements as a loader runs."""
