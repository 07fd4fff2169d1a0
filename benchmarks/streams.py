"""Compare the loader's speed on local shards and on the same shards streamed from this machine.

    python benchmarks/streams.py [--data DIR|scenes:N] [--copies N] [--recipe 'dino(local_crops=6)']
        [--workers N] [--rounds N] [--json FILE]

A turn is one epoch of a loader, or one pass of reading all samples without decoding; every
contender has one turn per round. The servers, Python's http.server and moto's S3 if it is
installed, are separate processes on the same cores. `curl` streams through a command's output.
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
from functools import partial
from pathlib import Path
from typing import Any

from patchmill.benchmarks.lib import source_rates, timing
from patchmill.benchmarks.lib.source_rates import Settings, read_settings
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


def main(argv: Sequence[str] | None = None) -> None:
    settings = read_settings("streams", __doc__, argv)
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
    heading = (
        f"their cores are the servers', too; {settings.workers} workers; {settings.recipe}; "
        f"{settings.copies} copies of {settings.data}; medians of {settings.rounds} rounds"
    )
    tables: list[source_rates.Table] = [
        ("images/s", rates, ",.0f"),
        ("images/s as a share of local shards", ratios, ".3f"),
        ("MB/s, reading alone", reads, ",.0f"),
    ]
    source_rates.show(heading, tables, notes)
    results = {"images_per_s": rates, "read_mb_per_s": reads, "share_of_local": ratios}
    source_rates.write(settings, results, notes)


def write_shards(settings: Settings, folder: Path) -> Path:
    """Shards of some MB with the images of the data, each `copies` times."""
    files = folder / "files"
    source_rates.write_copies(settings, files)
    size = sum(path.stat().st_size for path in files.rglob("*.jpg"))
    options = Options(format="shards", shard_size=max(size // 4, 1 << 20))
    make_data.make(open_source(files), folder / "shards", options, settings.workers)
    return folder / "shards"


def measure(
    shards: Path, places: dict[str, list[str]], settings: Settings, folder: Path
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Images per second of loaders and MB per second of reads, by contender and round."""
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
    """URLs of the shards by contender, and notes on skipped contenders."""
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
        notes.append("s3:// is skipped: install the extra streams")
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


if __name__ == "__main__":
    run_command(main)
