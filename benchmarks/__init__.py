"""Benchmarks of the loaders, kernels and training, next to other libraries."""
