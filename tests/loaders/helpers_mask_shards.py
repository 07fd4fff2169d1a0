"""Shards of samples with masks, for tests."""

from __future__ import annotations

import os
from pathlib import Path

import helpers_prepare as making
import webdataset

HOURS_AGO = 1_600_000_000


def write_mask_shard(path: Path, masks: list[bytes]) -> Path:
    """Write a shard with a JPEG per mask; empty bytes mean no mask."""
    with webdataset.TarWriter(str(path), encoder=False, mtime=0) as writer:
        for i, mask in enumerate(masks):
            sample = {"__key__": f"{i}", "jpg": making.jpeg(i)}
            writer.write(sample | ({"mask.png": mask} if mask else {}))
    os.utime(path, (HOURS_AGO, HOURS_AGO))
    return path
