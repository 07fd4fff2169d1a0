"""Machine code of compiled Triton kernels, counted: loops, widths of loads, occupancy, budgets."""
