"""Threads and processes in many orders."""
