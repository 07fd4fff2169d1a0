"""Fetch the Parquet files of a data set on the Hugging Face hub, once, into the hub's own cache."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from typing import Any, NamedTuple
from urllib.parse import unquote

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.parquet import files

_URL = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@([^/]+))?(?:/(.*))?")


class HubPath(NamedTuple):
    """Part of a data set on the hub."""

    repository: str  # OWNER/NAME
    revision: str | None
    path: str  # a file, a folder or a glob; empty for all


def fetch(url: str) -> list[str]:
    """Local paths of the Parquet files that `hf://datasets/OWNER/NAME[@REVISION][/PATH]` names.

    They are downloaded into the hub's cache, which `datasets` shares, unless they are there.
    Without a connection, the cached ones are used.
    """
    at = parse(url)
    try:
        import huggingface_hub as hub
        from huggingface_hub.utils import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise MillError(f"{url} needs huggingface_hub: pip install huggingface_hub") from None
    options: dict[str, Any] = {"repo_type": "dataset", "revision": at.revision}
    try:
        try:
            names = hub.HfApi().list_repo_files(at.repository, **options)
        except HfHubHTTPError:
            raise
        except Exception as error:  # of the HTTP client: no connection, or offline mode
            return _cached(url, at, options, error)
        chosen = _chosen(url, at.path, names)
        patterns = [glob.escape(name) for name in chosen]
        folder = hub.snapshot_download(at.repository, allow_patterns=patterns, **options)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise _refusal(url, error) from None
    return [os.path.join(folder, name) for name in chosen]


def parse(url: str) -> HubPath:
    match = _URL.fullmatch(url)
    if match is None:
        raise MillError(f"cannot read {url!r}: write hf://datasets/OWNER/NAME, or .../NAME/PATH")
    revision = unquote(match[2]) if match[2] else None
    return HubPath(match[1], revision, (match[3] or "").strip("/"))


def _cached(url: str, at: HubPath, options: dict[str, Any], cause: Exception) -> list[str]:
    import huggingface_hub as hub

    patterns = [at.path, f"{at.path}/*{files.ENDING}"] if at.path else [f"*{files.ENDING}"]
    try:
        folder = hub.snapshot_download(
            at.repository, allow_patterns=patterns, local_files_only=True, **options
        )
    except Exception:
        raise _refusal(url, cause) from None
    names = glob.glob("**/*", root_dir=folder, recursive=True)
    return [os.path.join(folder, name) for name in _chosen(url, at.path, names)]


def _chosen(url: str, path: str, names: list[str]) -> list[str]:
    parquet = sorted(name for name in names if name.endswith(files.ENDING))
    if not parquet:
        raise MillError(
            f"{url} has no Parquet files: name its shards, as .../*.tar, or download it; for "
            "many data sets the hub itself makes Parquet files, at "
            "hf://datasets/OWNER/NAME@refs%2Fconvert%2Fparquet"
        )
    if path in parquet:
        return [path]
    if glob.has_magic(path):
        chosen = [name for name in parquet if fnmatch.fnmatchcase(name, path)]
    else:
        chosen = [name for name in parquet if not path or name.startswith(path + "/")]
        if chosen:
            root = url.rstrip("/").removesuffix("/" + path) if path else url
            files.require_one_set(root, chosen)
    if not chosen:
        patterns = sorted({re.sub(r"\d+-of-\d+", "*", name) for name in parquet})
        raise MillError(f"no file of {url} matches {path!r}; there are: {', '.join(patterns[:5])}")
    return chosen


def _refusal(url: str, error: Exception) -> MillError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if type(error).__name__ == "GatedRepoError" or status in (401, 403):
        return MillError(
            f"{url} is not open to you, or does not exist ({status or 401}): check the name, ask "
            "for access on its page, and log in with `hf auth login`"
        )
    if status == 404:
        return MillError(f"{url} does not exist (404): check the owner, the name and the revision")
    reason = f"status {status}" if status else " ".join(str(error).split())[:120]
    return MillError(f"cannot fetch {url}: {reason or type(error).__name__}; try again later")
