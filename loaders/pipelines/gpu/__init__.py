"""Pipeline `threads` on a GPU: threads decode, the GPU renders on its own stream."""
