"""Processes that are killed, disks that fill up, sources and ranks that fail."""
