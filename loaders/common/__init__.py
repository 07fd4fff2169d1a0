"""Helpers every loader module shares: errors, settings, files, progress, the cache folder."""
