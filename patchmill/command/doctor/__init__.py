"""Probes of what this machine has and can do, each in a process of its own with a time limit."""
