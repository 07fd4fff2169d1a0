"""A live page of runs, or of the views of a recipe, served by `patchmill watch`."""

from patchmill.training.watch.command import main

__all__ = ["main"]
