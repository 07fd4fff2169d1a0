"""Puts this folder, with helpers shared by all kernel tests, on the path."""
