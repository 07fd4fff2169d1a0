"""The decoded cache: images that were decoded once, kept as uint8 and shared by a node's ranks."""
