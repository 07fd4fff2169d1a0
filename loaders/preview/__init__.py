"""Contact sheets of views, and of masks; the command is `python -m patchmill.loaders.preview`."""
