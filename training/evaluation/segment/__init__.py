"""evaluate=segment: semantic segmentation by a head on a backbone, or by kNN of its tokens."""
