"""Scenes: photo-like procedural images with labels and exact masks."""
