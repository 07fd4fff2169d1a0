"""Entry point of `python -m patchmill.loaders.prepare`."""

from patchmill.loaders.common.errors import run_command
from patchmill.loaders.prepare.command import main

if __name__ == "__main__":
    run_command(main)
