"""Remove home paths, user and host names, and secrets from text that is to be published."""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

SECRET, HOST, USER = "<secret>", "HOST", "USER"

# Names of environment variables, options and settings with secret values.
_NAME = r"(?:pass(?:word|wd|phrase)?|token|secret|credentials?|api_?key|access_?key(?:_?id)?|auth)"
_SECRET_VARIABLE = re.compile(rf"(?i)(?:^|_){_NAME}(?:$|_)|_key$")
_PATTERNS = {
    # A private key, as in ssh's files.
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)": SECRET,
    # scheme://user:password@host
    r"\b([a-zA-Z][\w+.-]*://)[^/\s@\"'<>]+@": rf"\1{SECRET}@",
    # Signatures and similar parameters in the query of a URL.
    r"(?i)([?&](?:x-(?:amz|goog|ms)-[\w-]+|sig|signature|se|sp|sv|policy|key-pair-id|awsaccesskeyid|"
    rf"googleaccessid|(?:[\w-]*[_-])?(?:{_NAME}|key))=)[^&\s\"'<>]+": rf"\1{SECRET}",
    # Authorization: Bearer ...
    r"(?i)(authorization[\"']?\s*[=:]\s*[\"']?)\w+\s+[^\s\"']+": rf"\1{SECRET}",
    r"(?i)\b(bearer\s+)[\w.~+/=-]{8,}": rf"\1{SECRET}",
    # password=..., "api_key": "...", --token ...
    rf"(?i)((?:\b|_|-){_NAME}[\"']?(?:[ \t]*[=:][ \t]*|[ \t]+(?=\S*\d))[\"']?)"
    r"[^\s\"',;&<>]{4,}": rf"\1{SECRET}",
    # Tokens recognised by their prefix.
    r"\b(?:hf_|gh[pousr]_|github_pat_|glpat-|sk-|xox[abeoprs]-|pypi-|npm_)[\w-]{12,}": SECRET,
    r"\b(?:AKIA|ASIA|AIza)[\w-]{12,}": SECRET,
    r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?": SECRET,
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+": "<address>",
    r"(?<=://)\d{1,3}(?:\.\d{1,3}){3}": "<address>",
}
_RULES = [(re.compile(pattern, re.DOTALL), text) for pattern, text in _PATTERNS.items()]
_ANY_HOME = re.compile(r"(?<![\w.~-])/(?:home|Users)/[^/\s\"':,;]+")
# Accounts that exist everywhere, and host names that reveal nothing.
_COMMON = {"root", "user", "admin", "nobody", "ubuntu", "debian", "runner", "docker", "localhost"}


def redact(text: str, hosts: Iterable[str] = (), environ: Mapping[str, str] | None = None) -> str:
    """The text without secrets and names: those of `hosts` too, not only of this machine."""
    environ = os.environ if environ is None else environ
    for value in _secret_values(environ):
        text = text.replace(value, SECRET)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    for home in _homes(environ):
        text = re.sub(rf"(?<![\w.~-]){re.escape(home)}(?![\w-])", "~", text)
    text = _ANY_HOME.sub("~", text)
    for name in _names([*hosts, *_own_hosts(environ)]):
        text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", HOST, text)
    for name in _names(_users(environ)):
        text = re.sub(rf"(?<![a-zA-Z0-9]){re.escape(name)}(?![a-zA-Z0-9])", USER, text)
    return text


def _secret_values(environ: Mapping[str, str]) -> list[str]:
    values = {
        value
        for name, value in environ.items()
        if _SECRET_VARIABLE.search(name) and len(value) >= 6 and not value.startswith(("/", "~"))
    }
    return sorted(values, key=len, reverse=True)


def _homes(environ: Mapping[str, str]) -> list[str]:
    homes = {environ.get("HOME", ""), os.path.expanduser("~")}
    homes |= {os.path.realpath(home) for home in homes if home}
    return sorted((home for home in homes if len(home.strip("/~")) > 0), key=len, reverse=True)


def _own_hosts(environ: Mapping[str, str]) -> list[str]:
    names = [
        environ.get(name, "") for name in ("HOSTNAME", "SLURMD_NODENAME", "SLURM_JOB_NODELIST")
    ]
    return [*names, environ.get("SLURM_SUBMIT_HOST", ""), socket.gethostname()]


def _users(environ: Mapping[str, str]) -> list[str]:
    names = [environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER")]
    try:
        names.append(getpass.getuser())
    except (OSError, KeyError, ImportError):  # a user without a name, as in some containers
        pass
    home = Path(environ.get("HOME", ""))
    return [*names, home.name if home.parent.name in ("home", "Users") else ""]


def _names(names: Iterable[str]) -> list[str]:
    """Names to remove, in full and without their domain, longest first."""
    parts = {part for name in names for part in (name, name.partition(".")[0])}
    return sorted((p for p in parts if len(p) > 1 and p not in _COMMON), key=len, reverse=True)
