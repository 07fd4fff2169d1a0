"""Hostile archives, settings, names, caches and links."""
