"""A live page on runs, or on the views of a recipe; the command is `patchmill watch`."""

from patchmill.training.watch.command import main

__all__ = ["main"]
