"""SLIC superpixels and the graph of their neighbours."""
