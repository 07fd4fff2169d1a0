"""Evaluation of trained networks: kNN, linear probes, patches, reliance on backgrounds."""
