"""Saliency estimators computed from superpixels: GS, MC and RBD."""
