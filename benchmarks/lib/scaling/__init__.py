"""Scaling: measured with processes here, predicted for many nodes."""
