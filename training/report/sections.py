"""Sections of the page below its head, in order; empty ones are omitted."""

from __future__ import annotations

from typing import Any

from patchmill.training.report import results
from patchmill.training.report.curves import ChartStyle, Line, Point, chart
from patchmill.training.report.markup import folded, grid, picture, section, table, tag, text
from patchmill.training.report.run_data import RunData, is_number
from patchmill.training.report.summary import untrained

# Columns of log.csv that every run has; the others are metrics of its method.
COMMON = ("step", "epoch", "loss", "lr", "images_per_s", "wait", "grad_norm", "memory_gb")
LONG = 12  # rows; longer tables are collapsed
WIDE = 8  # metrics of an evaluation; wider tables are collapsed

CAPTIONS = {
    "views": "Images with the boxes of their views, and the views",
    "masks": "Images, their masks, and their foregrounds",
    "segment": "Test images, their labels, and the predictions of each network",
    "detect": "Test images, their objects, and the detections of each network",
    "neighbours": "Patches and their nearest neighbours among the patches of other images",
}
SEGMENTATION, DETECTION = ("segment",), ("detect",)
PATCHES, BACKGROUNDS = ("patches", "neighbours"), ("reliance", "masks", "overlays", "saliency")
ELSEWHERE = (*PATCHES, *SEGMENTATION, *DETECTION, *BACKGROUNDS)  # in sections of their own


def everything(run: RunData) -> str:
    parts = (
        learning,
        throughput,
        views,
        evaluations,
        patches,
        segmentation,
        detection,
        backgrounds,
        configuration,
    )
    return "".join(part(run) for part in parts)


# ------------------------------------------------------------------------------------------- curves


def learning(run: RunData) -> str:
    metrics = [name for name in run.log if name not in COMMON]
    curves = grid(
        _curve(run, "loss", "Loss"),
        _knn(run),
        _evaluated(run, "Online linear classifier on h", {"linear_online": ""}, percent=True),
        _evaluated(run, "RankMe", {"rankme_h": "h", "rankme_z": "z"}, form="{:.1f}"),
        _evaluated(run, "Spread of directions", {"spread_h": "h", "spread_z": "z"}),
        _curve(run, "lr", "Learning rate", zero=True),
        _curve(run, "grad_norm", "Gradient norm", zero=True),
        *(_curve(run, name, results.title(name)) for name in metrics),
    )
    return section("Learning", curves or tag("p", "Nothing is logged yet.", class_="about"))


def throughput(run: RunData) -> str:
    curves = grid(
        _curve(run, "images_per_s", "Images per second", zero=True, form="{:,.0f}"),
        _curve(run, "wait", "Share of time waiting for data", zero=True, percent=True),
        _curve(run, "memory_gb", "GPU memory, GB", zero=True),
    )
    return section("Throughput", curves, _advice(run))


def _advice(run: RunData) -> str:
    """Show the loader's bottleneck, as last written by the run."""
    loader = run.status.get("loader")
    sentence = loader.get("advice") if isinstance(loader, dict) else None
    if not isinstance(sentence, str) or not sentence:
        return ""
    return tag("p", text(f"Loader of rank 0: {sentence}."), class_="about")


def _curve(
    run: RunData,
    name: str,
    title: str,
    *,
    zero: bool = False,
    percent: bool = False,
    form: str = "{:.4g}",
) -> str:
    form = "{:.1%}" if percent else form
    return chart(
        ChartStyle(
            title, run.x_name, percent=percent, zero=zero, ends=_ends(run), form=form.format
        ),
        [Line("", run.points(name))],
    )


def _knn(run: RunData) -> str:
    rows = [row for row in run.evaluated("knn") if isinstance(row.get(run.x_name), int | float)]
    baseline = untrained(run)
    return chart(
        ChartStyle(
            "kNN accuracy",
            run.x_name,
            percent=True,
            zero=True,
            level=None if baseline is None else ("untrained", baseline),
            ends=_ends(run),
            form="{:.1%}".format,
        ),
        [Line("", [Point(row[run.x_name], row["knn"]) for row in rows])],
    )


def _evaluated(
    run: RunData,
    title: str,
    names: dict[str, str],
    *,
    percent: bool = False,
    form: str = "{:.2f}",
) -> str:
    """Chart metrics measured during training: a line for each one that is present."""
    rows = [row for row in run.measured() if isinstance(row.get(run.x_name), int | float)]
    lines = [
        Line(name, [Point(row[run.x_name], row[key]) for row in rows if is_number(row.get(key))])
        for key, name in names.items()
    ]
    form = "{:.1%}" if percent else form
    style = ChartStyle(
        title, run.x_name, percent=percent, zero=True, ends=_ends(run), form=form.format
    )
    return chart(style, lines)


def _ends(run: RunData) -> tuple[float, float]:
    """Return the range of x in all charts: from the start of training to the log's last row."""
    return 0.0, max((x for x in run.log.get(run.x_name, []) if x is not None), default=1.0)


# ----------------------------------------------------------------------------------------- pictures


def views(run: RunData) -> str:
    names = [name for name in run.pictures if name not in ELSEWHERE]
    names.sort(key=lambda name: name != "views")
    return section("What training sees", *(_picture(run, name) for name in names))


def _picture(run: RunData, name: str) -> str:
    if name not in run.pictures:
        return ""
    return picture(run.pictures[name], CAPTIONS.get(name, results.label(name)))


# -------------------------------------------------------------------------------------- evaluations


def evaluations(run: RunData) -> str:
    files = [name for name in run.results if name not in (*ELSEWHERE, "untrained")]
    kinds: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in run.evaluations:
        kinds.setdefault(tuple(key for key in row if key not in ("step", "epoch")), []).append(row)
    pieces = [
        *(piece for name in files for piece in _result(run, name)),
        *(_over_time(names, rows) for names, rows in kinds.items()),
    ]
    return section("Evaluations", _row(pieces))


def _row(pieces: list[str]) -> str:
    return tag("div", *pieces, class_="row") if pieces else ""


def _result(run: RunData, name: str) -> list[str]:
    if name not in run.results:
        return []
    result = run.results[name]
    step = result.get("step") if isinstance(result, dict) else None
    after = f" after step {step:,}" if isinstance(step, int) else ""
    return results.render(results.title(name) + after, result)


def _over_time(names: tuple[str, ...], rows: list[dict[str, Any]]) -> str:
    """Build a table of metrics that were measured together, one row per evaluation."""
    heads = ["step", "epoch", *names]
    cells = [[results.format_value(name, row.get(name)) for name in heads] for row in rows]
    title = "During training" if "knn" in names else "All evaluations"
    figures = table(title, [results.label(name) for name in heads], cells)
    if len(rows) <= LONG and len(names) <= WIDE:
        return figures
    return folded(f"{title}: {len(rows):,} of {', '.join(map(results.label, names[:3]))}", figures)


def patches(run: RunData) -> str:
    return section("Patches", _row(_result(run, "patches")), _picture(run, "neighbours"))


def segmentation(run: RunData) -> str:
    return section("Segmentation", _row(_result(run, "segment")), _picture(run, "segment"))


def detection(run: RunData) -> str:
    return section("Detection", _row(_result(run, "detect")), _picture(run, "detect"))


def backgrounds(run: RunData) -> str:
    pictures = [_picture(run, name) for name in BACKGROUNDS]
    return section("Foreground and background", _row(_result(run, "reliance")), *pictures)


# ------------------------------------------------------------------------------------ configuration


def configuration(run: RunData) -> str:
    if not run.config_text:
        return ""
    about = "config.yaml: every setting, with its value in this run"
    return section("Configuration", folded(about, tag("pre", text(run.config_text), tabindex=0)))
