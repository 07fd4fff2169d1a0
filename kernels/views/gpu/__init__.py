"""The GPU renderer, written in Triton."""
