"""Batches from pinned memory to a GPU, while it trains on the one before."""

from __future__ import annotations

from collections import deque

import torch


class Upload:
    """Host to device on a stream of its own, so that copies hide behind the training step."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)
        self._underway: deque[tuple[torch.cuda.Event, torch.Tensor]] = deque()

    def __call__(
        self, flat: torch.Tensor, labels: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        while self._underway and self._underway[0][0].query():
            self._underway.popleft()  # the copy is over: its pinned memory may be written again
        with torch.cuda.stream(self._stream):
            views = flat.to(self._device, non_blocking=True)
            if labels is not None:
                labels = labels.to(self._device, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self._underway.append((copied, flat))
        current = torch.cuda.current_stream(self._device)
        current.wait_event(copied)
        for tensor in (views, labels):
            if tensor is not None:
                tensor.record_stream(current)
        return views, labels
