"""Compare the loader's speed on local shards and on the same shards, streamed from this machine.

    python benchmarks/streams.py [--data DIR|scenes:N] [--copies N] [--recipe 'dino(local_crops=6)']
        [--workers N] [--rounds N] [--json FILE]

A turn is one epoch of a loader, or one reading of all samples without decoding; every contender has
one turn per round. The servers, http.server of Python and the S3 of moto where it is installed,
are processes of their own on the same cores. `curl` is the stream as a command writes it.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from patchmill.benchmarks.lib import machine, report, timing
from patchmill.benchmarks.lib.report import Parser
from patchmill.benchmarks.lib.timing import Summary
from patchmill.loaders import build
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.common.progress import track
from patchmill.loaders.prepare import make_data
from patchmill.loaders.prepare.options import Options
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.stream.stream import Stream

LOCAL = "local shards"

_HTTP = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"]
_S3 = """
import threading, moto.server
server = moto.server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print("port", server.get_host_and_port()[1], flush=True)
threading.Event().wait()
"""
_S3_SETTINGS = {
    "AWS_ACCESS_KEY_ID": "mill",
    "AWS_SECRET_ACCESS_KEY": "mill",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}

Turn = Callable[[], float]  # returns images, or megabytes, per second


@dataclass(frozen=True)
class Settings:
    data: str
    copies: int
    recipe: str
    workers: int
    batch_size: int
    rounds: int
    json: str | None


def main(words: Sequence[str] | None = None) -> None:
    settings = _settings(words)
    report.check_writable(settings.json)
    with tempfile.TemporaryDirectory(prefix="patchmill-") as name, contextlib.ExitStack() as opened:
        folder = Path(name)
        shards = write_shards(settings, folder)
        places, notes = serve(shards, opened)
        images, megabytes = measure(shards, places, settings, folder)
    rates = {name: timing.summary(values) for name, values in images.items()}
    reads = {name: timing.summary(values) for name, values in megabytes.items()}
    ratios = {
        name: timing.ratio(values, images[LOCAL])
        for name, values in images.items()
        if name != LOCAL
    }
    _show(rates, reads, ratios, notes, settings)
    if settings.json:
        options = {k: v for k, v in asdict(settings).items() if k != "json"}
        results = {
            "images_per_s": {name: _rounded(row) for name, row in rates.items()},
            "read_mb_per_s": {name: _rounded(row) for name, row in reads.items()},
            "share_of_local": {name: _rounded(row) for name, row in ratios.items()},
        }
        report.write_json(settings.json, {**options, **results, "notes": notes})


def write_shards(settings: Settings, folder: Path) -> Path:
    """Shards of some MB with the images of the data, each `copies` times."""
    source = open_source(settings.data)
    files = folder / "files"
    for copy in range(settings.copies):
        (files / f"copy{copy:04d}").mkdir(parents=True)
        for id in range(len(source)):
            (files / f"copy{copy:04d}" / f"{id:08d}.jpg").write_bytes(source.read(id))
    size = sum(path.stat().st_size for path in files.rglob("*.jpg"))
    options = Options(format="shards", shard_size=max(size // 4, 1 << 20))
    make_data.make(open_source(files), folder / "shards", options, settings.workers)
    return folder / "shards"


def measure(
    shards: Path, places: dict[str, list[str]], settings: Settings, folder: Path
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Images per second of loaders and MB per second of reading, by contender and round."""
    size = sum(path.stat().st_size for path in shards.glob("*.tar")) / 1e6
    reads: dict[str, Turn] = {name: partial(_read_all, urls, size) for name, urls in places.items()}
    data: dict[str, Any] = {LOCAL: str(shards), **places}
    with contextlib.ExitStack() as opened:
        epochs: dict[str, Turn] = {}
        for name, one in data.items():
            loader = build(
                one,
                settings.recipe,
                settings.batch_size,
                workers=settings.workers,
                drop_last=False,
                ledger=folder / f"{name}.jsonl",
            )
            opened.callback(loader.close)
            epochs[name] = partial(_epoch, loader)
        with track("measuring", (len(reads) + len(epochs)) * (1 + settings.rounds)) as advance:
            turns = [
                {n: partial(_tracked, t, advance) for n, t in kind.items()}
                for kind in (epochs, reads)
            ]
            for kind in turns:
                timing.interleave(kind, 1)  # warm-up
            images, megabytes = (timing.interleave(kind, settings.rounds) for kind in turns)
    return images, megabytes


def _tracked(turn: Turn, advance: Callable[[int], None]) -> float:
    timing.wait_until_idle()
    rate = turn()
    advance(1)
    return rate


def _epoch(loader: Any) -> float:
    began = time.perf_counter()
    images = sum(map(len, loader))
    return images / (time.perf_counter() - began)


def _read_all(urls: list[str], megabytes: float) -> float:
    began = time.perf_counter()
    for _ in Stream(urls).samples(0):
        pass
    return megabytes / (time.perf_counter() - began)


# ----------------------------------------------------------------------------------------- servers


def serve(shards: Path, opened: contextlib.ExitStack) -> tuple[dict[str, list[str]], list[str]]:
    """URLs of the shards by contender, and notes on contenders that are left out."""
    names, notes = sorted(path.name for path in shards.glob("*.tar")), []
    web = f"http://127.0.0.1:{_start([*_HTTP, str(shards)], opened)}"
    places = {
        "file://": [f"file://{shards / name}" for name in names],
        "http://": [f"{web}/{name}" for name in names],
    }
    if shutil.which("curl"):
        places["curl"] = [f"pipe:curl -s -f {web}/{name}" for name in names]
    if all(map(importlib.util.find_spec, ("moto", "s3fs", "flask_cors"))):
        port = _start([sys.executable, "-c", _S3], opened)
        os.environ |= {**_S3_SETTINGS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        _upload(shards, names, port)
        places["s3://"] = [f"s3://photos/{name}" for name in names]
    else:
        notes.append("s3:// is left out: install the extra streams")
    return places, notes


def _start(command: list[str], opened: contextlib.ExitStack) -> int:
    """Start a server that ends with this process; return its port."""
    process = opened.enter_context(
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    )
    opened.callback(process.terminate)
    line = process.stdout.readline() if process.stdout else ""
    port = re.search(r"port (\d+)", line)
    if port is None:
        raise MillError(f"the server does not start: {' '.join(command[:4])}")
    return int(port[1])


def _upload(shards: Path, names: list[str], port: int) -> None:
    credential = "AWS4-HMAC-SHA256 Credential=mill/x/us-east-1/s3/aws4_request"
    headers = {"Authorization": credential, "Content-Type": "application/x-tar"}
    connection = http.client.HTTPConnection("127.0.0.1", port)
    contents = {"/photos": b""} | {f"/photos/{n}": (shards / n).read_bytes() for n in names}
    for path, content in contents.items():
        connection.request("PUT", path, content, headers)
        connection.getresponse().read()
    connection.close()


# --------------------------------------------------------------------------------------- the report


def _show(
    rates: dict[str, Summary],
    reads: dict[str, Summary],
    ratios: dict[str, Summary],
    notes: list[str],
    settings: Settings,
) -> None:
    console = Console(highlight=False)
    console.print(
        f"{machine.cpu()}, {machine.cores()} cores with the servers'; {settings.workers} workers; "
        f"{settings.recipe}; {settings.copies} copies of {settings.data}; medians of "
        f"{settings.rounds} rounds\n",
        style="dim",
        markup=False,
    )
    tables = (
        ("images/s", rates, ",.0f"),
        ("images/s as a share of local shards", ratios, ".3f"),
        ("MB/s, reading alone", reads, ",.0f"),
    )
    for title, summaries, form in tables:
        table = report.new_table(title, "median", "low to high")
        for name, one in summaries.items():
            quartiles = f"{one.low:{form}} to {one.high:{form}}"
            table.add_row(name, f"[bold]{one.median:{form}}[/]", quartiles)
        console.print(table)
        console.print()
    for note in notes:
        console.print(note, style="dim", markup=False)


def _rounded(summary: Summary) -> dict[str, float]:
    return {name: round(value, 3) for name, value in asdict(summary).items()}


def _settings(words: Sequence[str] | None) -> Settings:
    parser = Parser("streams", __doc__)
    parser.add_argument("--data", default="scenes:256", help="a folder, or scenes:N (%(default)s)")
    parser.add_argument("--copies", type=int, default=4, help="copies of each image (%(default)s)")
    parser.add_argument("--recipe", default="dino", help="a preset with its knobs, or a YAML file")
    parser.add_argument(
        "--workers", type=int, default=machine.cores(), help="per contender (default: all cores)"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    arguments = vars(parser.parse_args(words))
    for name in ("copies", "workers", "batch_size", "rounds"):
        if not arguments[name] > 0:
            raise MillError(f"--{name.replace('_', '-')} must be above 0, not {arguments[name]}")
    return Settings(**arguments)


if __name__ == "__main__":
    run_command(main)
