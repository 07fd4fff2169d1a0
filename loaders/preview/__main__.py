"""Entry point of `python -m patchmill.loaders.preview`."""

from patchmill.loaders.common.errors import run_command
from patchmill.loaders.preview.command import main

if __name__ == "__main__":
    run_command(main)
