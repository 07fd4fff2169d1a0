"""Head of the page: title, state, and cards with the main metrics."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from statistics import median

from patchmill.training.report.markup import NOTHING, card, tag, text
from patchmill.training.report.run_data import RunData, numbers
from patchmill.training.runtime import collapse


def title(run: RunData) -> str:
    method, data = run.setting("method_name"), run.setting("data.name")
    return f"{method} on {data}" if method and data else run.folder.resolve().name


def head(run: RunData) -> str:
    state = run.status.get("state")
    badge = tag("span", text(state), class_=f"badge {_kind(state)}") if state else ""
    parts = [run.folder.resolve().name, *_when(run)]
    below = tag("p", text(" · ".join(parts)), class_="about")
    return tag(
        "header",
        tag("p", "patchmill · training report", class_="eyebrow"),
        tag("h1", text(title(run)), badge),
        below,
    )


def _kind(state: object) -> str:
    return str(state) if state in ("running", "done", "stopped", "failed") else "other"


def _when(run: RunData) -> list[str]:
    try:
        moment = datetime.fromtimestamp(run.status["time"], timezone.utc)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return []
    return [f"{moment.day} {moment:%B %Y, %H:%M} UTC"]


def cards(run: RunData) -> str:
    cards = [
        _method(run),
        _data(run),
        _progress(run),
        _knn(run),
        _collapse(run),
        _loss(run),
        _speed(run),
        _wait(run),
        _time(run),
        _machine(run),
        _versions(run),
    ]
    return tag("dl", *cards, class_="cards")


def _method(run: RunData) -> str:
    size = run.setting("size")
    sized = f" at {size} px" if size else ""
    return card(
        "Method",
        str(run.setting("method_name") or NOTHING),
        f"{run.setting('model.name') or ''}{sized}".strip(),
    )


def _data(run: RunData) -> str:
    source = run.setting("data.train") or ""
    return card("Data", str(run.setting("data.name") or NOTHING), str(source))


def _progress(run: RunData) -> str:
    epochs, logged = run.setting("train.epochs"), numbers(run.log.get("epoch", []))
    done = logged[-1] if logged else run.status.get("epoch")
    steps, all_steps = _steps(run), run.status.get("steps")
    note = f"{steps:,} steps" if steps is not None else ""
    if steps is not None and isinstance(all_steps, int) and steps != all_steps:
        note = f"step {steps:,} of {all_steps:,}"
    if run.status.get("reached"):
        note += f"; ended by evaluate.stop_at={run.setting('evaluate.stop_at')}"
    value = f"{done:.4g}" if isinstance(done, int | float) else NOTHING
    value += f" of {epochs}" if epochs else ""
    return card("Epochs", value, note)


def _steps(run: RunData) -> int | None:
    logged = numbers(run.log.get("step", []))
    return int(logged[-1]) if logged else None


def _knn(run: RunData) -> str:
    rows = run.evaluated("knn")
    if not rows:
        return card("kNN", NOTHING, "not evaluated")
    baseline = untrained(run)
    note = f"untrained: {baseline:.1%}" if baseline is not None else ""
    return card("kNN", f"{rows[-1]['knn']:.1%}", note)


def untrained(run: RunData) -> float | None:
    """Return the kNN accuracy before the first step."""
    at_start = [row["knn"] for row in run.evaluated("knn") if row.get("step") == 0]
    return at_start[0] if at_start else None


def _collapse(run: RunData) -> str:
    """Build a card for a collapse found by the last evaluation during training; empty if none."""
    rows = run.measured()
    sentence = collapse.sentence(rows[-1]) if rows else ""
    return card("Collapse", "collapsed", sentence) if sentence else ""


def _loss(run: RunData) -> str:
    losses = [loss for loss in numbers(run.log.get("loss", [])) if math.isfinite(loss)]
    if not losses:
        return card("Loss", NOTHING)
    return card("Loss", f"{losses[-1]:.4g}", f"at the start: {losses[0]:.4g}")


def _speed(run: RunData) -> str:
    speeds = numbers(run.log.get("images_per_s", []))
    value = f"{median(speeds):,.0f}" if speeds else NOTHING
    return card("Images/s", value, f"median, batches of {_batch(run)}" if speeds else "")


def _wait(run: RunData) -> str:
    waits = numbers(run.log.get("wait", []))
    value = f"{median(waits):.1%}" if waits else NOTHING
    return card("Wait for data", value, "of the time, median" if waits else "")


def _batch(run: RunData) -> str:
    return str(run.setting("train.batch_size") or "?")


def _time(run: RunData) -> str:
    seconds = _seconds(run)
    value = str(timedelta(seconds=round(seconds))) if seconds else NOTHING
    restarts = run.status.get("restarts")
    note = "of training, without evaluations" if seconds else ""
    if restarts:
        note += f"; {restarts} restart{'s' if restarts != 1 else ''}"
    return card("Time", value, note)


def _seconds(run: RunData) -> float:
    """Return the training time, from each row's steps and throughput since the previous row."""
    batch = run.setting("train.batch_size")
    speeds, steps = run.log.get("images_per_s", []), run.log.get("step", [])
    if not isinstance(batch, int):
        return 0.0
    total, before = 0.0, 0.0
    for step, speed in zip(steps, speeds, strict=False):
        if step is not None and speed:
            total += (step - before) * batch / speed
            before = step
    return total


def _machine(run: RunData) -> str:
    device, host = run.status.get("machine"), run.status.get("host")
    return card("Machine", str(device or host or NOTHING), str(host or "") if device else "")


def _versions(run: RunData) -> str:
    first, *others = str(run.status.get("versions") or NOTHING).split(", ")
    return card("Versions", first, ", ".join(others))
