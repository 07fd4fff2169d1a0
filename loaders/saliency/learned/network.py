"""Saliency maps by a network whose weights the user supplies.

The weights carry the supervision they were trained with: report it with your results.

Programs (TorchScript, ONNX) may hold any network from a [1, 3, size, size] RGB image, normalised as
for ImageNet, to a map [1, 1, h, w] or [1, h, w], or to a list of maps with the best one first, as
U2-Net and BASNet return them. Values outside 0 to 1 are treated as logits. `torch.export` files are
refused: loading one may unpickle its contents.
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

Forward = Callable[[np.ndarray], np.ndarray]  # float32 [1, 3, size, size] to a map of any rank


@dataclass(frozen=True)
class Network:
    """A loaded network that maps images to saliency."""

    forward: Forward
    constants: Learned
    digest: str  # SHA-256 of the file

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, None]:
        """The map of a uint8 RGB image as uint8 [h, w], its longer side at most `size`."""
        from patchmill.loaders.saliency.resample import resize

        square = resize(image, self.constants.size, self.constants.size)
        pixels = (square.astype(np.float32) / 255 - MEAN) / STD
        output = self.forward(np.ascontiguousarray(pixels.transpose(2, 0, 1))[None])
        plane = self._to_plane(output)
        height, width = image.shape[:2]
        longest = max(height, width)
        if longest > self.constants.size:
            height = max(1, round(height * self.constants.size / longest))
            width = max(1, round(width * self.constants.size / longest))
        return resize(plane[..., None], height, width)[..., 0], None

    def _to_plane(self, output: np.ndarray) -> np.ndarray:
        if output.ndim < 2 or output.size != output.shape[-1] * output.shape[-2]:
            raise MillError(
                f"{self.constants.weights} gives {list(output.shape)} for one image, which is not "
                "one map: export a network with one output of one channel"
            )
        values: np.ndarray = np.nan_to_num(output.reshape(output.shape[-2:]).astype(np.float32))
        if values.min() < 0 or values.max() > 1:
            values = 1 / (1 + np.exp(-np.clip(values, -50, 50)))
        if self.constants.normalise:
            from patchmill.loaders.saliency.thresholds import minmax_normalise

            values = minmax_normalise(values)
        return np.rint(values * 255).astype(np.uint8)


def open_network(constants: Learned) -> Network:
    """Load the file of weights; MillError if it cannot be used."""
    path = Path(constants.weights)
    if path.suffix not in LOADERS:
        raise MillError(f"cannot recognise the format of {path}: name it {', '.join(LOADERS)}")
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise MillError(
            f"cannot read weights {path}: {error.strerror}; "
            "python -m patchmill.loaders.saliency.train makes some"
        ) from None
    try:
        return Network(LOADERS[path.suffix](path, constants.device), constants, digest)
    except MillError:
        raise
    except Exception as error:  # each library raises its own errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MillError(f"cannot open the network {path}: {reason}") from None


def _load_u2net(path: Path, device: str) -> Forward:
    """The small U2-Net from its weights, or from the key "model" of a training checkpoint."""
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
            f"{path} holds weights of something other than the small U2-Net: export other "
            "networks as TorchScript (.ts) or ONNX (.onnx)"
        ) from None
    network.to(device)
    return _wrap_torch(lambda pixels: torch.sigmoid(network(pixels)[0]), device)


def _load_torchscript(path: Path, device: str) -> Forward:
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.load.* is deprecated", FutureWarning)
        return _wrap_torch(torch.jit.load(path, map_location=device).eval(), device)


def _wrap_torch(network: Callable[[Any], Any], device: str) -> Forward:
    import torch

    def forward(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            output = network(torch.from_numpy(pixels).to(device))
            return _first_map(output).float().cpu().numpy()

    return forward


def _load_onnx(path: Path, device: str) -> Forward:
    try:
        import onnxruntime
    except ImportError:
        raise MillError(
            f"reading {path} needs ONNX Runtime: pip install 'patchmill[onnx]'"
        ) from None
    wanted = ["CUDAExecutionProvider"] if device.startswith("cuda") else []
    session = onnxruntime.InferenceSession(path, providers=[*wanted, "CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: _first_map(session.run(None, {name: pixels}))


def _first_map(output: Any) -> Any:
    while isinstance(output, list | tuple):
        output = output[0]
    if isinstance(output, dict):
        return _first_map(list(output.values()))
    return output


LOADERS: dict[str, Callable[[Path, str], Forward]] = {
    ".safetensors": _load_u2net,
    ".pth": _load_u2net,
    ".pt": _load_torchscript,
    ".ts": _load_torchscript,
    ".onnx": _load_onnx,
}
