"""Puts this folder on the path: what the tests of all its parts share lies here."""
