"""Scenes: photo-like images painted from a seed, with labels and exact masks."""
