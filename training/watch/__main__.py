"""Entry point of `python -m patchmill.training.watch`."""

from patchmill.loaders.common.errors import run_command
from patchmill.training.watch.command import main

if __name__ == "__main__":
    run_command(main)
