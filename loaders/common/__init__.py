"""Shared helpers: errors, typed settings, calls, ranks, threads, printing, progress."""
