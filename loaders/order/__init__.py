"""The order of an epoch's samples, and the share of each step and rank."""
