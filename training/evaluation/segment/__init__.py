"""evaluate=segment: semantic segmentation with a head on a backbone, or by kNN of its tokens."""
