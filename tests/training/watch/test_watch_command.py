"""The command: what it prints, how it ends, and what it refuses."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_watch import begin, log

from patchmill.loaders.common.errors import MillError
from patchmill.training.watch import main


def test_it_prints_an_address_and_ends_at_once_on_ctrl_c(tmp_path: Path):
    log(begin(tmp_path / "run"), range(1, 5))
    command = [sys.executable, "-m", "patchmill.training.watch", str(tmp_path), "--port", "0"]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout
    lines = [started.stdout.readline() for _ in range(3)]
    found = re.search(r"http://127\.0\.0\.1:(\d+)(/\?key=\S+)", lines[0])
    assert found and f"ssh -L {found[1]}:127.0.0.1:{found[1]} " in lines[1]
    connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
    connection.request("GET", found[2])
    cookie = connection.getresponse().headers["Set-Cookie"].partition(";")[0]
    page = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
    page.request("GET", "/events?run=run", headers={"Cookie": cookie})
    assert page.getresponse().readline().startswith(b"retry")
    started.send_signal(signal.SIGINT)  # a page is open
    out, errors = started.communicate(timeout=60)
    assert (started.returncode, out.strip(), errors) == (0, "", "")


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["nowhere"], "there is no folder nowhere: name that of a run or of runs, or images with"),
        (["nowhere", "--recipe", "dino"], "there is no folder 'nowhere'"),
        (["https://a.example/b.tar", "--recipe", "dino"], "the page does not download data"),
        (["scenes:9", "--recipe", "dinno"], "dinno"),
        (["scenes:9", "--recipe", "dino(local_cropz=3)"], "local_cropz"),
    ],
)
def test_mistakes_are_one_sentence(argv: list[str], problem: str):
    with pytest.raises(MillError) as error:
        main([*argv, "--port", "0"])
    assert problem in str(error.value) and "\n" not in str(error.value)


def test_a_port_that_does_not_exist_is_refused(tmp_path: Path):
    with pytest.raises(MillError, match="there is no port 99999: choose one from 1024 to 65535"):
        main([str(tmp_path), "--port", "99999"])
