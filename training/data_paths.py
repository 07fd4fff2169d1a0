"""Where a data set's parts lie: `data.root` and the names that it gives them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from patchmill.loaders.common.errors import MillError

PARTS = ("train", "test", "bank")
_NEEDED = ""  # a root that the user has to give


def find(data: dict[str, Any], given: Collection[str]) -> dict[str, Any]:
    """The settings of `data`, its parts as places that loaders.build takes.

    A part may have several names, as in `val|test`: the first that is there is meant. `given` are
    the keys that the user set; someone who names the parts need not name their folder.
    """
    if data["root"] == _NEEDED and "data.train" in given:
        data = {k: None if k in PARTS and f"data.{k}" not in given else v for k, v in data.items()}
        data["root"] = None
    if data["root"] == _NEEDED:
        parts = " and ".join(str(data[part]) for part in PARTS if data[part]).replace("|", " or ")
        raise MillError(f"data={data['name']} needs data.root=DIR, the folder that holds {parts}")
    if not data["train"]:
        raise MillError(f"data={data['name']} needs data.train=..., what to train on")
    if data["root"] is None:
        return data
    return data | {part: _place(Path(data["root"]), data[part], part) for part in PARTS}


def _place(root: Path, names: str | None, part: str) -> str | None:
    if names is None:
        return None
    for name in names.split("|"):
        for place in (name, f"{name}.beton", f"{name}-*.tar", f"{name}.tar"):
            if any(root.glob(place)) if "*" in place else (root / place).exists():
                return str(root / place)
    if part != "train" and "|" in names:  # nobody asked for it
        return None
    raise MillError(
        f"data.root={root} holds no {names.replace('|', ' or ')}: a folder, {names}.beton or "
        f"{names}-*.tar"
    )
