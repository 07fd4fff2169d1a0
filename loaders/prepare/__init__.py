"""Convert images to WebDataset shards or an FFCV .beton, and make their masks.

The commands are `patchmill prepare`, `patchmill masks` and `patchmill inspect`.
"""
