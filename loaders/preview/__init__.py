"""Contact sheets: what a recipe makes of some images, drawn as for training."""
