"""Puts this folder on the path: what the tests of all kernels share lies here."""
