"""Names and messages from outside are shown on a terminal, and never steer it."""

from __future__ import annotations

import io
import logging
import os
import sys
from pathlib import Path
from tarfile import GNU_FORMAT

import helpers_shards
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchmill.loaders.common import progress
from patchmill.loaders.common.log_lines import StderrLines
from patchmill.loaders.common.printed import printable
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.prepare import command
from patchmill.training.report import markup
from patchmill.training.runtime.display import Display

TITLE = "\x1b]0;owned\x07\x1b[2J"  # sets a window's title, and clears the screen


@given(st.text(st.characters(), max_size=20) | st.binary(max_size=20).map(os.fsdecode))
def test_printable_text_can_be_encoded_and_controls_nothing(text: str):
    shown = printable(text)
    assert shown.encode().decode() == shown
    assert printable(shown) == shown and "\x1b" not in shown and len(shown.splitlines()) <= 1


def test_letters_are_kept_and_bytes_are_escaped():
    assert printable("Grüße 東京 \N{SLICE OF PIZZA}") == "Grüße 東京 \N{SLICE OF PIZZA}"
    assert printable(f"a{TITLE}\n.jpg") == r"a\x1b]0;owned\x07\x1b[2J\x0a.jpg"
    assert printable(os.fsdecode(b"caf\xe9.jpg")) == r"caf\xe9.jpg"
    assert printable("gpj.\u202ephoto") == r"gpj.\u202ephoto"
    assert printable("two\n\tlines\x1b", lines=True) == "two\n\tlines\\x1b"


def test_log_lines_and_ledger(tmp_path: Path, capsys: pytest.CaptureFixture):
    log, handler = logging.getLogger("patchmill"), StderrLines()
    log.addHandler(handler)
    try:
        Ledger(tmp_path / "bad.jsonl", 100).record(3, f"{TITLE}\nsample 4.jpg", "empty")
    finally:
        log.removeHandler(handler)
    shown = capsys.readouterr().err
    assert shown.startswith(r"sample 3 was replaced: \x1b]0;owned\x07\x1b[2J\x0asample 4.jpg: em")
    assert shown.count("\n") == 1


def test_bars(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "_QUIET_SECONDS", 0.0)
    with progress.track(f"listing [/] {TITLE}", 10) as advance:
        advance(10)
    with Display(2, 0, f"[/b] {TITLE}") as display:
        display.say(f"[/b] {TITLE}")
    shown = capsys.readouterr().err
    assert "listing [/]" in shown and "[/b]" in shown and r"\x1b]0;owned" in shown
    assert "\x1b]0" not in shown and "\x1b[2J" not in shown


def test_inspect_names_a_member_that_is_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name = os.fsdecode(b"caf\xe9\x1b.jpg")
    shard = helpers_shards.write_tar(
        tmp_path / "data.tar", [(name, b"an image" * 9)], format=GNU_FORMAT
    )
    helpers_shards.add_indexes(tmp_path)
    shard.write_bytes(shard.read_bytes().replace(b"an image", b"AN image", 1))
    helpers_shards.backdate(shard)
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit) as ended:
        command.main(["inspect", str(tmp_path)])
    assert r"the checksum of caf\xe9\x1b.jpg differs" in str(ended.value.code)


def test_a_report_is_written_whatever_names_it_has():
    cell = markup.table("bad", ["where"], [[f"{TITLE}{os.fsdecode(bytes([0xE9]))}<b>"]])
    assert r"\x1b]0;owned\x07\x1b[2J\xe9&lt;b&gt;" in cell.encode().decode()
