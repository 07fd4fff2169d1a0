"""Code shared by the benchmarks: timing, image samples, machine description, reports."""
