"""Shared helpers: errors, typed settings, calls, files, column files, threads, progress, cache."""
