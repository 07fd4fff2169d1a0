"""A data loader for self-supervised learning on images, with training and SLURM code around it."""

from pathlib import Path

__version__ = "0.1.0"

# In a checkout the packages (loaders, kernels, ...) are next to this folder; once built they are
# inside it.
_checkout = Path(__file__).resolve().parents[1]
if (_checkout / "setup.cfg").is_file():
    __path__.append(str(_checkout))
