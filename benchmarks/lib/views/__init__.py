"""Parts of `kernels.py views`: roofline floors, stage times, table."""
