"""Decode encoded images to RGB pixels, equal to PIL's `convert("RGB")`."""
