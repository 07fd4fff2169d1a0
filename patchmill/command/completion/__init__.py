"""Completion of `patchmill` in bash, zsh and fish; fast, as it does not import torch."""
