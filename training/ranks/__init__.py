"""Processes that train together: rendezvous, collectives, sharding, signals, failures."""
