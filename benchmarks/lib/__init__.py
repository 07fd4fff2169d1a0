"""Shared by the benchmark commands: timing, image samples, machine description, reports."""
