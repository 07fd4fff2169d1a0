"""Mutated external bytes through every parser."""
