"""`throughput.py`: contenders, upper bounds, result rows and tables."""
