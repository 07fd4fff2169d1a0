"""GPU renderer in Triton: resize, contrast and blur passes over tiles of a batch's views."""
