"""What the benchmark commands share: contenders, timing, samples, reports."""
