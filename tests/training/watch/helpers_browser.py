"""An installed Chromium, driven over its DevTools pipe by the standard library alone."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import io
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 60.0  # seconds; a busy machine needs some


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A headless browser with a profile in `folder`; skips the test where none is installed."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    theirs_in, ours_out = _pipe()
    ours_in, theirs_out = _pipe()

    def connect() -> None:
        os.dup2(theirs_in, 3)
        os.dup2(theirs_out, 4)

    command = [
        program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-extensions", "--hide-scrollbars", "--remote-debugging-pipe",
        f"--user-data-dir={folder}",
    ]  # fmt: skip
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, pass_fds=(3, 4), preexec_fn=connect
        )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(ours_in, ours_out)
    finally:
        process.kill()
        process.wait()
        os.close(ours_in)
        os.close(ours_out)


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are not among the numbers that the browser uses."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 64) for end in ends]
    for end in ends:
        os.close(end)
    return moved[0], moved[1]


class Browser:
    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._buffer, self._last = b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        data = json.dumps(message | ({"sessionId": session} if session else {}))
        os.write(self._write, data.encode() + b"\0")
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            answer = self._next(ends)
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)
        raise AssertionError(f"the browser does not answer {method}")

    def open(self, url: str, width: int = 1200, height: int = 900) -> Page:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.resize(width, height)
        page.call("Page.navigate", url=url)
        page.until("document.readyState === 'complete' && location.protocol === 'http:'")
        return page

    def _next(self, ends: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(ends - time.monotonic(), 0))
            data = os.read(self._read, 2**20) if ready else b""
            assert data, "the browser has gone, or says nothing"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


class Page:
    def __init__(self, owner: Browser, session: str) -> None:
        self._browser, self._session = owner, session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def resize(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    def run(self, script: str) -> Any:
        """Value of an expression in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true."""
        ends = time.monotonic() + PATIENCE
        while not self.run(f"!!({script})"):
            shown = self.run("document.body?.innerText")
            assert time.monotonic() < ends, (script, self.errors(), shown)
            time.sleep(0.1)

    def errors(self) -> list[str]:
        """Errors on the console, exceptions, and refusals by the page's policy."""
        found = []
        for event in self._mine():
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(params["exceptionDetails"]))
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] == "error":
                found.append(json.dumps(params["args"]))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(json.dumps(params["entry"]))
        return found

    def requests(self) -> list[str]:
        return [
            event["params"]["request"]["url"]
            for event in self._mine()
            if event["method"] == "Network.requestWillBeSent"
        ]

    def picture(self) -> bytes:
        """A PNG of the window."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def _mine(self) -> list[dict[str, Any]]:
        return [e for e in self._browser.events if e.get("sessionId") == self._session]


def main() -> None:
    """Write a picture of a page that has drawn views: ADDRESS FILE WIDTH HEIGHT"""
    url, out, width, height = sys.argv[1:]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        with browser(Path(folder)) as opened:
            page = opened.open(url, int(width), int(height))
            page.until("document.querySelector('.sample .view')")
            time.sleep(1.0)  # the bars' last movement
            picture = Image.open(io.BytesIO(page.picture())).convert("RGB")
            picture.quantize(256, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    main()
