"""A run in progress: setup, state, checkpoints, hooks, metrics and what it writes."""
