"""Maps by a network that the user has weights for.

A file of weights imports whatever labels it was trained with: say so beside results.

Programs (TorchScript, ONNX) may be any network from a [1, 3, size, size] RGB image,
normalised as for ImageNet, to a map [1, 1, h, w] or [1, h, w], or to a list of maps that begins
with the best, as U2-Net and BASNet give them. Values outside 0 to 1 are taken for logits. Files of
`torch.export` are not read: loading one may unpickle what it holds.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.saliency.settings import Learned

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

Run = Callable[[np.ndarray], np.ndarray]  # float32 [1, 3, size, size] to a map of any rank


@dataclass(frozen=True)
class Network:
    run: Run
    by: Learned
    digest: str  # of the file

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, None]:
        """uint8 [h, w] of a uint8 RGB image, in the size that comes out of the network."""
        from patchmill.loaders.saliency.resample import resize

        square = resize(image, self.by.size, self.by.size)
        pixels = (square.astype(np.float32) / 255 - MEAN) / STD
        found = self.run(np.ascontiguousarray(pixels.transpose(2, 0, 1))[None])
        plane = self._plane(found)
        height, width = image.shape[:2]
        longest = max(height, width)
        if longest > self.by.size:
            height = max(1, round(height * self.by.size / longest))
            width = max(1, round(width * self.by.size / longest))
        return resize(plane[..., None], height, width)[..., 0], None

    def _plane(self, found: np.ndarray) -> np.ndarray:
        if found.ndim < 2 or found.size != found.shape[-1] * found.shape[-2]:
            raise MillError(
                f"{self.by.weights} gives {list(found.shape)} for one image, which is not one map: "
                "export a network with one output of one channel"
            )
        values: np.ndarray = np.nan_to_num(found.reshape(found.shape[-2:]).astype(np.float32))
        if values.min() < 0 or values.max() > 1:
            values = 1 / (1 + np.exp(-np.clip(values, -50, 50)))
        if self.by.normalise:
            from patchmill.loaders.saliency.thresholds import minmax_normalise

            values = minmax_normalise(values)
        return np.rint(values * 255).astype(np.uint8)


def opened(by: Learned) -> Network:
    """The network of the file; MillError where it is none."""
    path = Path(by.weights)
    if path.suffix not in OPENERS:
        raise MillError(f"cannot tell what {path} is: name it {', '.join(OPENERS)}")
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise MillError(
            f"cannot read weights {path}: {error.strerror}; "
            "python -m patchmill.loaders.saliency.train makes some"
        ) from None
    try:
        return Network(OPENERS[path.suffix](path, by.device), by, digest)
    except MillError:
        raise
    except Exception as error:  # each library has its own ways of refusing a file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MillError(f"cannot open the network {path}: {reason}") from None


def _weights(path: Path, device: str) -> Run:
    """Weights of the small U2-Net; of a training checkpoint, those under "model"."""
    import torch

    from patchmill.loaders.saliency.learned.u2net import load_state

    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("model", state)
    try:
        network = load_state(state)
    except (RuntimeError, TypeError):
        raise MillError(
            f"{path} holds weights of something else than the small U2-Net: export other "
            "networks as TorchScript (.ts) or ONNX (.onnx)"
        ) from None
    network.to(device)
    return _torch(lambda pixels: torch.sigmoid(network(pixels)[0]), device)


def _script(path: Path, device: str) -> Run:
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.load.* is deprecated", FutureWarning)
        return _torch(torch.jit.load(path, map_location=device).eval(), device)


def _torch(network: Callable[[Any], Any], device: str) -> Run:
    import torch

    def run(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found = network(torch.from_numpy(pixels).to(device))
            return _first(found).float().cpu().numpy()

    return run


def _onnx(path: Path, device: str) -> Run:
    try:
        import onnxruntime
    except ImportError:
        raise MillError(
            f"reading {path} needs ONNX Runtime: pip install 'patchmill[onnx]'"
        ) from None
    wanted = ["CUDAExecutionProvider"] if device.startswith("cuda") else []
    session = onnxruntime.InferenceSession(path, providers=[*wanted, "CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: _first(session.run(None, {name: pixels}))


def _first(found: Any) -> Any:
    while isinstance(found, list | tuple):
        found = found[0]
    if isinstance(found, dict):
        return _first(list(found.values()))
    return found


OPENERS: dict[str, Callable[[Path, str], Run]] = {
    ".safetensors": _weights,
    ".pth": _weights,
    ".pt": _script,
    ".ts": _script,
    ".onnx": _onnx,
}
