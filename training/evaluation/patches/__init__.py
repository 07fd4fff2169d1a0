"""evaluate=patches: means over patches of images, and neighbours of patches."""
