"""SLIC superpixels and their region adjacency graph."""
