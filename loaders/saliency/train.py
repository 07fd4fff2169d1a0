"""Trains the small U2-Net on scenes, whose foregrounds are known: the learned maps' demonstration.

    python -m patchmill.loaders.saliency.train scenes:2000 --out weights.safetensors

An interrupted run goes on where it was, given the same arguments. The weights are used as
`"learned(weights='weights.safetensors', size=96)"`.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.threads import map_in_threads
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.saliency.learned.network import MEAN, STD
from patchmill.loaders.saliency.learned.u2net import U2Net
from patchmill.loaders.saliency.resample import resize
from patchmill.loaders.sources import open_source

_MARGIN = 10 / 9  # pictures are so much larger than the crops that are trained on, as the authors'
_RATE = 1e-3
_SAVE_EVERY = 25  # steps


@dataclass(frozen=True)
class Settings:
    data: str
    steps: int
    batch: int
    size: int  # side of the square that the network sees
    seed: int


def train(settings: Settings, out: Path, device: str) -> list[float]:
    """Writes the weights; returns the losses of this run's steps."""
    pictures, masks = load(settings)
    torch.manual_seed(settings.seed)
    network = U2Net().to(device).train()
    adam = torch.optim.Adam(network.parameters(), lr=_RATE)
    checkpoint = out.with_name(out.name + ".checkpoint")
    begun = resume(checkpoint, settings, network, adam, device)
    losses: list[float] = []
    with track("training", settings.steps, begun, "steps") as advance:
        for step in range(begun, settings.steps):
            seen, wanted = drawn(pictures, masks, settings, step)
            loss = objective(network(seen.to(device)), wanted.to(device))
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            losses.append(loss.item())
            advance(1)
            if (step + 1) % _SAVE_EVERY == 0:
                save(checkpoint, settings, network, adam, step + 1)
    half = out.with_name(out.name + ".tmp")
    save_file(network.cpu().state_dict(), half, {"settings": repr(settings)})
    half.replace(out)
    checkpoint.unlink(missing_ok=True)
    return losses


def objective(maps: list[Tensor], wanted: Tensor) -> Tensor:
    """Cross entropy of the fused map and of each side's."""
    return torch.stack([F.binary_cross_entropy_with_logits(m, wanted) for m in maps]).sum()


# ----------------------------------------------------------------------------------------- the data


def load(settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [n, side, side, 3] pictures and [n, side, side, 1] masks, a margin larger than seen."""
    source: Any = open_source(settings.data)
    if not getattr(source, "masked", False):
        raise MillError(f"{source.name} has no masks to learn from: train on scenes:2000")
    side = round(settings.size * _MARGIN)
    pictures = np.empty((len(source), side, side, 3), np.uint8)
    masks = np.empty((len(source), side, side, 1), np.uint8)

    def read(index: int) -> None:
        mask = source.mask(index)
        if mask is None:
            raise MillError(
                f"{source.where(index)} has no mask: train on data of which all have one"
            )
        pictures[index] = resize(decode(source.read(index)), side, side)
        masks[index] = resize(mask[..., None], side, side)

    with track("reading", len(source)) as advance:
        for _ in map_in_threads(read, range(len(source)), 4):
            advance(1)
    return pictures, masks


def drawn(
    pictures: np.ndarray, masks: np.ndarray, settings: Settings, step: int
) -> tuple[Tensor, Tensor]:
    """A step's batch: random pictures, cropped and mirrored. Seed and step decide."""
    draw = np.random.Generator(np.random.Philox(key=[settings.seed, step]))
    size, room = settings.size, pictures.shape[1] - settings.size + 1
    seen, wanted = [], []
    for _ in range(settings.batch):
        index, y, x = draw.integers(len(pictures)), draw.integers(room), draw.integers(room)
        turn = 1 if draw.random() < 0.5 else -1
        window = np.s_[index, y : y + size, x : x + size]
        seen.append(((pictures[window] / np.float32(255) - MEAN) / STD)[:, ::turn])
        wanted.append((masks[window] / np.float32(255))[:, ::turn])
    return _channels_first(seen), _channels_first(wanted)


def _channels_first(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())


# ------------------------------------------------------------------------------------ checkpoints


def save(path: Path, settings: Settings, network: U2Net, adam: torch.optim.Adam, step: int) -> None:
    half = path.with_name(path.name + ".tmp")
    content = {
        "settings": asdict(settings),
        "step": step,
        "model": network.state_dict(),
        "adam": adam.state_dict(),
    }
    torch.save(content, half)
    half.replace(path)


def resume(
    path: Path, settings: Settings, network: U2Net, adam: torch.optim.Adam, device: str
) -> int:
    """How many steps are done already."""
    if not path.exists():
        return 0
    try:
        found = torch.load(path, map_location=device, weights_only=True)
        same = {**found["settings"], "steps": settings.steps} == asdict(settings)
    except Exception:  # torch has many ways of saying that a file is none of its own
        raise MillError(f"{path} is not a checkpoint: remove it to begin anew") from None
    if not same:
        raise MillError(f"{path} is of a run with other arguments: repeat them, or remove it")
    network.load_state_dict(found["model"])
    adam.load_state_dict(found["adam"])
    return int(found["step"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="scenes:2000, or scenes(...)")
    parser.add_argument("--out", type=Path, required=True, help="weights, as .safetensors")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=96, help="side of what the network sees")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args(arguments)
    if min(asked.steps, asked.batch) < 1 or asked.size < 32:
        raise MillError("--steps and --batch must be 1 or more, and --size 32 or more")
    if asked.out.suffix != ".safetensors" or not asked.out.absolute().parent.is_dir():
        raise MillError(f"--out {asked.out}: name a .safetensors file in a folder that exists")
    settings = Settings(asked.data, asked.steps, asked.batch, asked.size, asked.seed)
    losses = train(settings, asked.out, asked.device)
    ends = f": loss {losses[0]:.3f} to {losses[-1]:.3f}" if losses else ""
    print(f"{asked.out}{ends}")


if __name__ == "__main__":
    run_command(main)
