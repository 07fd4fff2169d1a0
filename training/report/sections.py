"""The parts of the page below its head, in their order. Each is empty where a run has nothing."""

from __future__ import annotations

from typing import Any

from patchmill.training.report import results
from patchmill.training.report.curves import Line, Look, Point, chart
from patchmill.training.report.found import Found
from patchmill.training.report.markup import folded, grid, picture, section, table, tag, text
from patchmill.training.report.summary import untrained

# Of log.csv; all other columns are parts of the loss, or stand beside it.
OWN = ("step", "epoch", "loss", "lr", "images_per_s", "wait", "grad_norm", "memory_gb")
LONG = 12  # rows of a table that are not folded away
WIDE = 8  # figures of one evaluation that are not

CAPTIONS = {
    "views": "Images with the boxes of their views, and the views",
    "masks": "Images, their masks, and what these cut out",
    "neighbours": "Patches, and those that are nearest to them among the patches of other images",
}
PATCHES, BACKGROUNDS = ("patches", "neighbours"), ("reliance", "masks", "overlays", "saliency")


def everything(found: Found) -> str:
    parts = (learning, throughput, views, evaluations, patches, backgrounds, configuration)
    return "".join(part(found) for part in parts)


# ------------------------------------------------------------------------------------------- curves


def learning(found: Found) -> str:
    parts = [name for name in found.log if name not in OWN]
    curves = grid(
        _curve(found, "loss", "Loss"),
        _knn(found),
        _curve(found, "lr", "Learning rate", zero=True),
        _curve(found, "grad_norm", "Norm of the gradient", zero=True),
        *(_curve(found, name, results.title(name)) for name in parts),
    )
    return section("Learning", curves or tag("p", "Nothing is logged yet.", class_="about"))


def throughput(found: Found) -> str:
    return section(
        "Throughput",
        grid(
            _curve(found, "images_per_s", "Images per second", zero=True, form="{:,.0f}"),
            _curve(found, "wait", "Share of time waiting for data", zero=True, percent=True),
            _curve(found, "memory_gb", "Memory of the GPU, GB", zero=True),
        ),
    )


def _curve(
    found: Found,
    name: str,
    title: str,
    *,
    zero: bool = False,
    percent: bool = False,
    form: str = "{:.4g}",
) -> str:
    form = "{:.1%}" if percent else form
    return chart(
        Look(title, found.x, percent=percent, zero=zero, ends=_ends(found), form=form.format),
        [Line("", found.points(name))],
    )


def _knn(found: Found) -> str:
    rows = [row for row in found.evaluated("knn") if isinstance(row.get(found.x), int | float)]
    begun = untrained(found)
    return chart(
        Look(
            "kNN accuracy",
            found.x,
            percent=True,
            zero=True,
            level=None if begun is None else ("untrained", begun),
            ends=_ends(found),
            form="{:.1%}".format,
        ),
        [Line("", [Point(row[found.x], row["knn"]) for row in rows])],
    )


def _ends(found: Found) -> tuple[float, float]:
    """All charts begin where training did, and end where it is."""
    return 0.0, max((it for it in found.log.get(found.x, []) if it is not None), default=1.0)


# ----------------------------------------------------------------------------------------- pictures


def views(found: Found) -> str:
    shown = [name for name in found.pictures if name not in (*PATCHES, *BACKGROUNDS)]
    first = sorted(shown, key=lambda name: name != "views")
    return section("What training sees", *(_picture(found, name) for name in first))


def _picture(found: Found, name: str) -> str:
    if name not in found.pictures:
        return ""
    return picture(found.pictures[name], CAPTIONS.get(name, results.words(name)))


# -------------------------------------------------------------------------------------- evaluations


def evaluations(found: Found) -> str:
    apart = (*PATCHES, *BACKGROUNDS, "untrained")
    files = [name for name in found.results if name not in apart]
    kinds: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in found.evaluations:
        kinds.setdefault(tuple(key for key in row if key not in ("step", "epoch")), []).append(row)
    pieces = [
        *(piece for name in files for piece in _result(found, name)),
        *(_over_time(names, rows) for names, rows in kinds.items()),
    ]
    return section("Evaluations", _row(pieces))


def _row(pieces: list[str]) -> str:
    return tag("div", *pieces, class_="row") if pieces else ""


def _result(found: Found, name: str) -> list[str]:
    if name not in found.results:
        return []
    result = found.results[name]
    step = result.get("step") if isinstance(result, dict) else None
    after = f" after step {step:,}" if isinstance(step, int) else ""
    return results.shown(results.title(name) + after, result)


def _over_time(names: tuple[str, ...], rows: list[dict[str, Any]]) -> str:
    """All figures that were measured together, from evaluation to evaluation."""
    heads = ["step", "epoch", *names]
    cells = [[results.said(name, row.get(name)) for name in heads] for row in rows]
    title = "While training" if names == ("knn",) else "From evaluation to evaluation"
    whole = table(title, [results.words(name) for name in heads], cells)
    if len(rows) <= LONG and len(names) <= WIDE:
        return whole
    return folded(f"{title}: {len(rows):,} of {', '.join(map(results.words, names[:3]))}", whole)


def patches(found: Found) -> str:
    return section("Patches", _row(_result(found, "patches")), _picture(found, "neighbours"))


def backgrounds(found: Found) -> str:
    there = [_picture(found, name) for name in BACKGROUNDS]
    return section("Foreground and background", _row(_result(found, "reliance")), *there)


# ------------------------------------------------------------------------------------ configuration


def configuration(found: Found) -> str:
    if not found.config_text:
        return ""
    about = "config.yaml: every setting, with its value in this run"
    return section("Configuration", folded(about, tag("pre", text(found.config_text), tabindex=0)))
