"""Training budgets for the heads: a paper's, and one for a CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

from patchmill.training.config.settings import Optim

SMALLEST, LARGEST = 64, 128  # side of a demo's views, in pixels


@dataclass(frozen=True)
class Budget:
    iterations: int
    batch: int
    size: tuple[int, int]  # of a view: height, width
    lr: float
    weight_decay: float
    warmup: float  # share of the iterations
    photometric: bool
    channels: int  # of the pyramid; its head has half as many
    dropout: float

    def optim(self) -> Optim:
        """Settings for the schedules, with an epoch of one iteration."""
        return Optim(
            name="adamw",
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule="poly",
            warmup=round(self.warmup * self.iterations),
            warmup_start=1e-6,
        )


# bok3948/GTSA, downstream/mmseg/my_configs, with mmsegmentation's ADE20K data and its 40k schedule.
# 16 images are 8 GPUs with 2 each.
PAPER = Budget(
    iterations=40_000,
    batch=16,
    size=(512, 512),
    lr=6e-5,
    weight_decay=0.01,
    warmup=1500 / 40_000,
    photometric=True,
    channels=256,
    dropout=0.1,
)
LINEAR_LR = 1e-3  # recalled: DINOv2's linear head for segmentation


def paper(head: str) -> Budget:
    """GTSA's budget; a linear probe uses the same with its own learning rate."""
    return replace(PAPER, lr=LINEAR_LR) if head == "linear" else PAPER


def demo(head: str, side: int) -> Budget:
    """Minutes on a CPU; the numbers are ours."""
    side = min(max(side, SMALLEST), LARGEST)
    rate = 1e-2 if head == "linear" else 3e-3
    return replace(
        PAPER,
        iterations=400,
        batch=8,
        size=(side, side),
        lr=rate,
        warmup=0.1,
        photometric=False,
        channels=64,
    )
