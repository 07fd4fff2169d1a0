"""Data preparation as an array of tasks."""
