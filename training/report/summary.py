"""The head of the page: what was trained, and what came of it, in a few figures."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from statistics import median

from patchmill.training.report.found import Found, numbers
from patchmill.training.report.markup import NOTHING, card, tag, text


def title(found: Found) -> str:
    method, data = found.setting("method_name"), found.setting("data.name")
    return f"{method} on {data}" if method and data else found.folder.resolve().name


def head(found: Found) -> str:
    state = found.status.get("state")
    badge = tag("span", text(state), class_=f"badge {_kind(state)}") if state else ""
    parts = [found.folder.resolve().name, *_when(found)]
    below = tag("p", text(" · ".join(parts)), class_="about")
    return tag(
        "header",
        tag("p", "patchmill · training report", class_="eyebrow"),
        tag("h1", text(title(found)), badge),
        below,
    )


def _kind(state: object) -> str:
    return str(state) if state in ("running", "done", "stopped", "failed") else "other"


def _when(found: Found) -> list[str]:
    try:
        moment = datetime.fromtimestamp(found.status["time"], timezone.utc)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return []
    return [f"{moment.day} {moment:%B %Y, %H:%M} UTC"]


def cards(found: Found) -> str:
    cards = [
        _method(found),
        _data(found),
        _progress(found),
        _knn(found),
        _loss(found),
        _speed(found),
        _wait(found),
        _time(found),
        _machine(found),
        _versions(found),
    ]
    return tag("dl", *cards, class_="cards")


def _method(found: Found) -> str:
    size = found.setting("size")
    sized = f" at {size} px" if size else ""
    return card(
        "Method",
        str(found.setting("method_name") or NOTHING),
        f"{found.setting('model.name') or ''}{sized}".strip(),
    )


def _data(found: Found) -> str:
    place = found.setting("data.train") or ""
    return card("Data", str(found.setting("data.name") or NOTHING), str(place))


def _progress(found: Found) -> str:
    of, logged = found.setting("train.epochs"), numbers(found.log.get("epoch", []))
    done = logged[-1] if logged else found.status.get("epoch")
    steps, all_steps = _steps(found), found.status.get("steps")
    note = f"{steps:,} steps" if steps is not None else ""
    if steps is not None and isinstance(all_steps, int) and steps != all_steps:
        note = f"step {steps:,} of {all_steps:,}"
    told = f"{done:.4g}" if isinstance(done, int | float) else NOTHING
    told += f" of {of}" if of else ""
    return card("Epochs", told, note)


def _steps(found: Found) -> int | None:
    logged = numbers(found.log.get("step", []))
    return int(logged[-1]) if logged else None


def _knn(found: Found) -> str:
    rows = found.evaluated("knn")
    if not rows:
        return card("kNN", NOTHING, "not evaluated")
    begun = untrained(found)
    note = f"untrained: {begun:.1%}" if begun is not None else ""
    return card("kNN", f"{rows[-1]['knn']:.1%}", note)


def untrained(found: Found) -> float | None:
    """What the network knew before its first step."""
    at_start = [row["knn"] for row in found.evaluated("knn") if row.get("step") == 0]
    return at_start[0] if at_start else None


def _loss(found: Found) -> str:
    losses = [it for it in numbers(found.log.get("loss", [])) if math.isfinite(it)]
    if not losses:
        return card("Loss", NOTHING)
    return card("Loss", f"{losses[-1]:.4g}", f"at first: {losses[0]:.4g}")


def _speed(found: Found) -> str:
    speeds = numbers(found.log.get("images_per_s", []))
    value = f"{median(speeds):,.0f}" if speeds else NOTHING
    return card("Images/s", value, f"median, batches of {_batch(found)}" if speeds else "")


def _wait(found: Found) -> str:
    waits = numbers(found.log.get("wait", []))
    value = f"{median(waits):.1%}" if waits else NOTHING
    return card("Wait for data", value, "of the time, median" if waits else "")


def _batch(found: Found) -> str:
    return str(found.setting("train.batch_size") or "?")


def _time(found: Found) -> str:
    seconds = _seconds(found)
    value = str(timedelta(seconds=round(seconds))) if seconds else NOTHING
    restarts = found.status.get("restarts")
    note = "of training, without evaluations" if seconds else ""
    if restarts:
        note += f"; {restarts} restart{'s' if restarts != 1 else ''}"
    return card("Time", value, note)


def _seconds(found: Found) -> float:
    """Each row of the log has the pace since the row before."""
    batch = found.setting("train.batch_size")
    speeds, steps = found.log.get("images_per_s", []), found.log.get("step", [])
    if not isinstance(batch, int):
        return 0.0
    total, before = 0.0, 0.0
    for step, speed in zip(steps, speeds, strict=False):
        if step is not None and speed:
            total += (step - before) * batch / speed
            before = step
    return total


def _machine(found: Found) -> str:
    device, host = found.status.get("machine"), found.status.get("host")
    return card("Machine", str(device or host or NOTHING), str(host or "") if device else "")


def _versions(found: Found) -> str:
    first, *others = str(found.status.get("versions") or NOTHING).split(", ")
    return card("Versions", first, ", ".join(others))
