"""Saliency estimators on superpixels: GS, MC and RBD."""
