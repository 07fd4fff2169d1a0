"""Redaction removes secrets and names everywhere, and nothing else."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchmill.command.redact import redact

ALICE = {"HOME": "/home/alice", "USER": "alice", "HOSTNAME": "gpu-login7.cluster.org"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/alice/runs/a", "~/runs/a"),
        ("file:///home/alice/x", "file://~/x"),
        ("out=/home/alice", "out=~"),
        ("/home/bob/shared, /Users/carol/x", "~/shared, ~/x"),
        ("/scratch/alice/data and alice's", "/scratch/USER/data and USER's"),
        ("alice@gpu-login7:~$", "USER@HOST:~$"),
        ("on gpu-login7.cluster.org, gpu-login7", "on HOST, HOST"),
        ("s3://key:secret@bucket/x", "s3://<secret>@bucket/x"),
        ("https://me@example.org/a.tar", "https://<secret>@example.org/a.tar"),
        (
            "https://e.org/a?X-Amz-Signature=abcd12&part=3",
            "https://e.org/a?X-Amz-Signature=<secret>&part=3",
        ),
        ("https://e.org/a?token=ab", "https://e.org/a?token=<secret>"),
        ("api_key: 'abcdef123'", "api_key: '<secret>'"),
        ('{"password": "hunter22"}', '{"password": "<secret>"}'),
        ("--hf-token abc123def", "--hf-token <secret>"),
        ("WANDB_API_KEY=0123456789abcdef", "WANDB_API_KEY=<secret>"),
        ("Authorization: Basic YWxpY2U6cHc=", "Authorization: <secret>"),
        ("hf_abcdefghijklmnopqrst is mine", "<secret> is mine"),
        ("AKIAIOSFODNN7EXAMPLE", "<secret>"),
        ("write to alice@example.org", "write to <address>"),
        ("tcp://10.1.2.3:29500", "tcp://<address>:29500"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "<secret>"),
    ],
)
def test_what_is_removed(text: str, expected: str):
    assert redact(text, environ=ALICE) == expected


@pytest.mark.parametrize(
    "text",
    [
        "data.root=/data/root, /data/home/x, train.pool: token\n  depth: 12",
        "tokens: 50000, temperature: 0.07, key=value, the basic evaluation",
        "nvidia-nvimgcodec-cu13 0.9.0.20, commit 0123456789abcdef0123456789abcdef01234567",
        "https://example.org/train-000001.tar?part=3",
        "malice and alicetown",
        "scenes(count=64, size=32), dino(local_crops=6)",
    ],
)
def test_what_stays(text: str):
    assert redact(text, environ=ALICE) == text


def test_the_account_of_everybody_is_no_name():
    root = {"HOME": "/root", "USER": "root", "HOSTNAME": "localhost"}
    text = "data.root=/data/root on localhost, in /root/x"
    assert redact(text, environ=root) == "data.root=/data/root on localhost, in ~/x"


words = st.text(string.ascii_letters + string.digits, min_size=8, max_size=40)


@given(
    words,
    st.sampled_from(["MY_TOKEN", "DB_PASSWORD", "AWS_SECRET_ACCESS_KEY", "API_KEY", "SIGNING_KEY"]),
)
def test_values_of_secret_variables_go_wherever_they_stand(secret: str, name: str):
    text = f"({secret}) x{secret}y https://e.org/{secret}"
    assert secret not in redact(text, environ={name: secret})


@given(words, words)
def test_credentials_of_urls_go(user: str, password: str):
    text = redact(f"cannot open https://{user}:{password}@example.org/a.tar: 403", environ={})
    assert text == "cannot open https://<secret>@example.org/a.tar: 403"


@given(st.text(string.ascii_lowercase, min_size=6, max_size=12), st.sampled_from(" /'\"=:,;()[]\n"))
def test_names_go_as_whole_words(name: str, edge: str):
    name = f"zz{name}"
    environ = {"USER": name, "HOME": f"/home/{name}", "HOSTNAME": f"{name}-host"}
    text = f"{edge}{name}{edge} {edge}/home/{name}/a{edge} {edge}{name}-host{edge}"
    assert redact(text, environ=environ) == f"{edge}USER{edge} {edge}~/a{edge} {edge}HOST{edge}"
