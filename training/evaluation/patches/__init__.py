"""evaluate=patches: means over patches of images, and nearest neighbours of patches."""
