"""Contact sheets of views, and of masks; the command is `patchmill preview`."""
