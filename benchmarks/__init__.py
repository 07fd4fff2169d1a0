"""What is fast and what is not: measured, beside what others use."""
