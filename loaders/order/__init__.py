"""The order of an epoch's samples, and which of them each step and rank takes."""
