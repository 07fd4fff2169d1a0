"""Entry point of `python -m patchmill`, and of `torchrun -m patchmill`."""

from patchmill.command.main import main

if __name__ == "__main__":
    main()
