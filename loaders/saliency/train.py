"""Train the small U2-Net on scenes, whose masks are exact: a demonstration of learned maps.

    python -m patchmill.loaders.saliency.train scenes:2000 --out weights.safetensors

An interrupted run resumes when called with the same arguments. Use the weights as
`"learned(weights='weights.safetensors', size=96)"`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from patchmill.loaders.common.arguments import Parser
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.threads import map_in_threads
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.files.writing import atomic_path
from patchmill.loaders.saliency.learned.network import MEAN, STD
from patchmill.loaders.saliency.learned.u2net import U2Net
from patchmill.loaders.saliency.resample import resize
from patchmill.loaders.sources import open_source

_IMAGE_TO_CROP = 10 / 9  # side of the images relative to the training crops, as in U2-Net
_LEARNING_RATE = 1e-3
_SAVE_EVERY = 25  # steps


@dataclass(frozen=True)
class Settings:
    """The arguments that a resumed run must repeat; stored in checkpoints and with the weights."""

    data: str
    steps: int
    batch: int
    size: int  # side of the network's square input
    seed: int


def train(settings: Settings, out: Path, device: str) -> list[float]:
    """Train, write the weights to `out` and return the losses of this run's steps."""
    images, masks = load_data(settings)
    torch.manual_seed(settings.seed)
    network = U2Net().to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    checkpoint = out.with_name(out.name + ".checkpoint")
    first_step = resume(checkpoint, settings, network, optimizer, device)
    losses: list[float] = []
    with track("training", settings.steps, first_step, "steps") as advance:
        for step in range(first_step, settings.steps):
            crops, targets = draw_batch(images, masks, settings, step)
            loss = deep_supervision_loss(network(crops.to(device)), targets.to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            advance(1)
            if (step + 1) % _SAVE_EVERY == 0:
                save_checkpoint(checkpoint, settings, network, optimizer, step + 1)
    with atomic_path(out, out.name + ".tmp") as partial:
        save_file(network.cpu().state_dict(), partial, {"settings": repr(settings)})
    checkpoint.unlink(missing_ok=True)
    return losses


def deep_supervision_loss(maps: list[Tensor], targets: Tensor) -> Tensor:
    """Binary cross-entropy summed over the fused map and all side maps."""
    return torch.stack([F.binary_cross_entropy_with_logits(m, targets) for m in maps]).sum()


# ----------------------------------------------------------------------------------------- the data


def load_data(settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images [n, side, side, 3] and masks [n, side, side, 1], larger than the crops."""
    source: Any = open_source(settings.data)
    if not getattr(source, "masked", False):
        raise MillError(f"{source.name} has no masks to learn from: train on scenes:2000")
    side = round(settings.size * _IMAGE_TO_CROP)
    images = np.empty((len(source), side, side, 3), np.uint8)
    masks = np.empty((len(source), side, side, 1), np.uint8)

    def read(index: int) -> None:
        mask = source.mask(index)
        if mask is None:
            raise MillError(
                f"{source.where(index)} has no mask: train on data in which every image has one"
            )
        images[index] = resize(decode(source.read(index)), side, side)
        masks[index] = resize(mask[..., None], side, side)

    with track("reading", len(source)) as advance:
        for _ in map_in_threads(read, range(len(source)), 4):
            advance(1)
    return images, masks


def draw_batch(
    images: np.ndarray, masks: np.ndarray, settings: Settings, step: int
) -> tuple[Tensor, Tensor]:
    """Random crops, flipped half of the time, and their masks; a function of seed and step."""
    rng = np.random.Generator(np.random.Philox(key=[settings.seed, step]))
    size, offsets = settings.size, images.shape[1] - settings.size + 1
    crops, targets = [], []
    for _ in range(settings.batch):
        index, y, x = rng.integers(len(images)), rng.integers(offsets), rng.integers(offsets)
        stride = 1 if rng.random() < 0.5 else -1  # -1 flips
        window = np.s_[index, y : y + size, x : x + size]
        crops.append(((images[window] / np.float32(255) - MEAN) / STD)[:, ::stride])
        targets.append((masks[window] / np.float32(255))[:, ::stride])
    return _channels_first(crops), _channels_first(targets)


def _channels_first(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())


# ------------------------------------------------------------------------------------ checkpoints


def save_checkpoint(
    path: Path, settings: Settings, network: U2Net, optimizer: torch.optim.Adam, step: int
) -> None:
    content = {
        "settings": asdict(settings),
        "step": step,
        "model": network.state_dict(),
        "adam": optimizer.state_dict(),
    }
    with atomic_path(path, path.name + ".tmp") as partial:
        torch.save(content, partial)


def resume(
    path: Path, settings: Settings, network: U2Net, optimizer: torch.optim.Adam, device: str
) -> int:
    """Load the checkpoint, if there is one; return the number of steps done."""
    if not path.exists():
        return 0
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)
        same = {**checkpoint["settings"], "steps": settings.steps} == asdict(settings)
    except Exception:  # torch raises many kinds of errors for foreign files
        raise MillError(f"{path} is not a checkpoint: remove it to start over") from None
    if not same:
        raise MillError(
            f"{path} is from a run with other arguments: repeat those, or remove it to start over"
        )
    network.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["adam"])
    return int(checkpoint["step"])


def main(arguments: list[str] | None = None) -> None:
    parser = Parser("python -m patchmill.loaders.saliency.train", "DATA", __doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", help="scenes:2000, or scenes(...)")
    parser.add_argument("--out", type=Path, required=True, help="weights, as .safetensors")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=96, help="side of the network's square input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    if min(options.steps, options.batch) < 1 or options.size < 32:
        raise MillError("--steps and --batch must be 1 or more, and --size 32 or more")
    if options.out.suffix != ".safetensors" or not options.out.absolute().parent.is_dir():
        raise MillError(f"--out {options.out}: name a .safetensors file in a folder that exists")
    settings = Settings(options.data, options.steps, options.batch, options.size, options.seed)
    losses = train(settings, options.out, options.device)
    change = f": loss {losses[0]:.3f} to {losses[-1]:.3f}" if losses else ""
    print(f"{options.out}{change}")


if __name__ == "__main__":
    run_command(main)
