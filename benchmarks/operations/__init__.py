"""Cases of benchmarks/kernels.py: inputs, contenders and roofline floor of each operation."""
