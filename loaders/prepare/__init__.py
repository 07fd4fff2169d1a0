"""Prepare images as WebDataset shards or an FFCV .beton, and make their masks.

The command is `python -m patchmill.loaders.prepare`.
"""
