"""Backbones, heads, normalisation and the EMA teacher."""
