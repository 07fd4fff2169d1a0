"""`RegionPairs`: pairs of regions in the student's and the teacher's feature maps."""

from __future__ import annotations

from typing import NamedTuple

import torch


class RegionPairs(NamedTuple):
    """Contiguous tensors; region r of the student is compared with region r of the teacher."""

    student: torch.Tensor  # [S, h, w, C]: maps, channels last
    teacher: torch.Tensor  # [T, H, W, C]
    student_boxes: torch.Tensor  # [R, 4] float32: x1, y1, x2, y2 in pixels of the map
    teacher_boxes: torch.Tensor  # [R, 4] float32
    student_index: torch.Tensor  # [R] int64: each region's map
    teacher_index: torch.Tensor  # [R] int64
    pose: torch.Tensor  # [R] int64: quarter turns of the teacher's region, plus 4 for a mirror
