"""Parquet files with images, as Hugging Face writes them and as pyarrow does by default."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def write_images(
    path: Path,
    images: Sequence[bytes | None],
    labels: Sequence[int] | None = None,
    names: Sequence[str] = (),
    **options: Any,
) -> Path:
    """A column `image` of bytes and path, and a column `label` with its names in the schema."""
    import pyarrow
    from pyarrow import parquet

    struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    rows = [
        None if data is None else {"bytes": data, "path": f"{i}.jpg"}
        for i, data in enumerate(images)
    ]
    columns: dict[str, Any] = {"image": pyarrow.array(rows, struct)}
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if labels is not None:
        columns["label"] = pyarrow.array(labels, pyarrow.int64())
        features["label"] = {"_type": "ClassLabel", "names": list(names)} if names else {}
    described = json.dumps({"info": {"features": features}})
    table = pyarrow.table(columns).replace_schema_metadata({"huggingface": described})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, **options)
    return path


def noise(count: int, size: int, seed: int = 0) -> list[bytes]:
    """Byte strings that do not compress, of about `size` bytes."""
    rng = np.random.default_rng(seed)
    return [rng.bytes(int(rng.integers(size // 2, size + 1))) for _ in range(count)]
