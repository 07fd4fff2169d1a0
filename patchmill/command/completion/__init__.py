"""Completion of `patchmill` in bash, zsh and fish: quick, as it loads no torch."""
