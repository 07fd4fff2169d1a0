"""Mutated bytes from outside: through every parser of them."""
