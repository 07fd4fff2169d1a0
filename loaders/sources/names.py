"""Names that columns of images and of labels usually have, the most usual ones first."""

IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "photo", "picture", "bytes", "content")
LABEL_NAMES = ("label", "labels", "class", "cls", "target", "fine_label", "category")
