"""The command `patchmill`, which dispatches to the entry points of its subcommands."""
