"""Threads and processes in many interleavings."""
