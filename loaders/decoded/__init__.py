"""The decoded cache: images decoded once, kept as uint8 and shared by all ranks of a node."""
