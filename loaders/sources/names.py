"""Usual names of image and label columns, the most common first."""

IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "photo", "picture", "bytes", "content")
LABEL_NAMES = ("label", "labels", "class", "cls", "target", "fine_label", "category")
