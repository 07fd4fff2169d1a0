"""What benchmarks/kernels.py measures: for each operation its inputs, its peers and its floor."""
