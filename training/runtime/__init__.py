"""A training run: setup, state, hooks between steps, and everything written to its folder."""
