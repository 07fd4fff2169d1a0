"""Pipeline `ffcv`: FFCV compiles and runs the work of a batch."""
