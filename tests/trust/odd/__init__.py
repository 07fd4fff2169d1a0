"""Rare, broken and hostile images."""
