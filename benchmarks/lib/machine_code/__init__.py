"""Machine code statistics of compiled Triton kernels: loops, load widths, occupancy, budgets."""
