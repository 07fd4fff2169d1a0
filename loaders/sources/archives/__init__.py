"""Archives of images that are read in place: zip files and LMDB databases."""
