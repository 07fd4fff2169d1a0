"""Draw every random decision of a recipe before a pixel is touched."""
