"""An export: files in a folder, and the lines of Python that load them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files.writing import atomic_path


@dataclass(frozen=True)
class Export:
    files: dict[str, Any]  # name -> tensors or plain data; the suffix is the format
    load: list[str]  # lines of Python; {out} stands for the folder
    notes: list[str] = field(default_factory=list)  # sentences for the user


def write(export: Export, out: Path, force: bool) -> None:
    """Write an export's files to the folder `out`, each of them atomically."""
    present = [out / name for name in export.files if (out / name).exists()]
    if present and not force:
        raise MillError(
            f"{present[0]} exists: write to another folder with out=DIR, or overwrite it with "
            "force=true"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in export.files.items():
            with atomic_path(out / name, durable=True) as partial:
                _WRITERS[Path(name).suffix](content, partial)
    except (OSError, RuntimeError) as error:  # RuntimeError comes from torch's writer
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise MillError(f"cannot write to {out}: {reason}") from None


def _write_json(content: Any, path: Path) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_safetensors(content: Any, path: Path) -> None:
    from safetensors.torch import save

    path.write_bytes(save(content, {"format": "pt"}))


def _write_torch(content: Any, path: Path) -> None:
    import torch

    with open(path, "wb") as file:
        torch.save(content, file)


_WRITERS: dict[str, Callable[[Any, Path], None]] = {
    ".json": _write_json,
    ".safetensors": _write_safetensors,
    ".pth": _write_torch,
}
