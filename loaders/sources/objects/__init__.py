"""Data sets in memory or of other libraries: anything with `__len__` and `__getitem__`."""
