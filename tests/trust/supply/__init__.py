"""Hostile archives, settings, names and caches, and what is installed."""
