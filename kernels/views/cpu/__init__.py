"""The CPU renderer, compiled by Numba."""
