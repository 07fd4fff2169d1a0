"""Killed processes, full disks, failing sources and ranks."""
