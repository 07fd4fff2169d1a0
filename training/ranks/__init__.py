"""Multi-process training: rendezvous, collectives, parallel wrappers, signals, failures."""
