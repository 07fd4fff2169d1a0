"""Masks and backgrounds for saliency-guided copy-paste."""
