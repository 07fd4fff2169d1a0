"""Pipeline `dali`: NVIDIA DALI decodes, a GPU or threads render."""
