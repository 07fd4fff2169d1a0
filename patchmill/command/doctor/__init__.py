"""Probes of what this machine has and can do, each in its own process with a timeout."""
