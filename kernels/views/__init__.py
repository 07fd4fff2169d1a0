"""Rendering: decoded images and rows of decisions in, tensors of views out."""
