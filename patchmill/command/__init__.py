"""The command `patchmill`, over the entry points that its parts have on their own."""
