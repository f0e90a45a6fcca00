"""Check the files that a run took over from another run against the files of that run.

Whether their rows are right is checked as for any file (files.py), and by a replay. Here the question is whether a file
says truly where its rows come from, and whether the votes there are those of this run.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.pipeline.verify.findings import Finding, shown
from smoothcert.pipeline.verify.identity import flat
from smoothcert.pipeline.verify.record import CheckedRun, parse_json, reason_of, same_json

_ENTRY = "metadata adopted_from"
_METADATA_KEY = b"smoothcert"
_MAY_DIFFER = {"images.shards", "images.limit", "images.version", "votes_version"}
"""Entries of the identity on which the rows of a tar do not depend; the votes_version is compared file by file."""


class Adopted(NamedTuple):
    """What a file says about its origin, as any JSON.

    Attributes:
        origin: the entry `adopted_from` of its metadata.
        shard_sha256, columns_sha256, votes_version: entries of its metadata.
    """

    origin: Any
    shard_sha256: Any
    columns_sha256: Any
    votes_version: Any


class CheckedAdoptions(NamedTuple):
    """What is wrong, and what could not be checked.

    Attributes:
        counts: number of files by the run that they come from, as _SUCCESS should have it; None if a file does not say.
    """

    findings: list[Finding]
    notices: list[str]
    counts: dict[str, int] | None


def check_adopted(run: CheckedRun, files: Mapping[str, Adopted]) -> CheckedAdoptions:
    """Compare each file with its origin, if that is still in the folder that holds the run.

    Args:
        run: the run.
        files: its files that were taken over, by name.
    Raises:
        RequestError: the storage does not answer.
    """
    findings: list[Finding] = []
    gone, counts = Counter[str](), Counter[str]()
    across = 0
    others: dict[str, list[str]] = {}
    output = run.url.rpartition("/")[0] if "://" in run.url else str(Path(run.url).absolute().parent)
    renewed = Counter[str]()
    for name, adopted in files.items():
        origin = adopted.origin
        if not _is_origin(origin):
            findings.append(Finding(name, f"is {shown(origin)}, expected run_id, file and sha256", _ENTRY))
            continue
        run_id = origin["run_id"]
        counts[run_id] += 1
        across += adopted.votes_version != run.record.votes_version
        if run_id not in others:
            others[run_id] = _other_votes(run, f"{output}/{run_id}/run.json")
        url = f"{output}/{run_id}/{origin['file']}"
        if others[run_id]:
            text = f"is {run_id}, a run of other votes: it differs in {', '.join(others[run_id])}"
            findings.append(Finding(name, text, f"{_ENTRY}.run_id"))
        elif run.store.find(url) is None:
            gone[run_id] += 1
        else:
            data = run.store.read(url)
            different = [*_differences(name, adopted, data)]
            findings += different
            renewed[run_id] += not different and hashlib.sha256(data).hexdigest() != origin["sha256"]
    notices = [
        f"{_files(count)} taken over from run {run_id}, which is not here (or lacks them): not compared"
        for run_id, count in gone.items()
    ]
    notices += [
        f"{_files(count)} taken over from run {run_id}, which has been made again since, with the same rows"
        for run_id, count in renewed.items()
        if count
    ]
    if across:
        notices.append(f"{_files(across)} taken over across versions: their votes_version is not the run's")
    return CheckedAdoptions(findings, notices, dict(counts) if counts.total() == len(files) else None)


def _files(count: int) -> str:
    return "1 file was" if count == 1 else f"{count} files were"


def _is_origin(origin: Any) -> bool:
    """Whether it names a run, a file of votes and its hash; nothing else may become a URL."""
    patterns = {"run_id": r"[0-9a-f]{16}", "file": r"votes/[^/]+\.parquet", "sha256": r"[0-9a-f]{64}"}
    return isinstance(origin, dict) and all(
        isinstance(origin.get(key), str) and re.fullmatch(pattern, origin[key]) for key, pattern in patterns.items()
    )


def _other_votes(run: CheckedRun, url: str) -> list[str]:
    """The entries of the identity by which another run, of which `url` is the run.json, has other votes."""
    if run.store.find(url) is None:
        return []
    try:
        content = parse_json(run.store.read(url))
    except ValueError:
        content = None
    identity = content.get("identity") if isinstance(content, dict) else None
    mine, there = flat(run.record.identity), flat(identity if isinstance(identity, dict) else {})
    keys = sorted((mine.keys() | there.keys()) - _MAY_DIFFER)
    return [key for key in keys if (key in mine) != (key in there) or not same_json(mine.get(key), there.get(key))]


def _differences(name: str, adopted: Adopted, data: bytes) -> Iterator[Finding]:
    """How the file differs from its origin, whose bytes are `data`: the first difference, from which others follow."""
    origin = adopted.origin
    where = f"{origin['run_id']}/{origin['file']}"
    try:
        there = parse_json((pq.read_schema(pa.BufferReader(data)).metadata or {}).get(_METADATA_KEY, b""))
    except (pa.ArrowException, OSError, ValueError) as error:
        yield Finding(name, f"{where} cannot be read as a file of votes ({reason_of(error)})", _ENTRY)
        return
    for key in ("shard_sha256", "columns_sha256", "votes_version"):
        mine = getattr(adopted, key)
        if not isinstance(there, dict) or there.get(key) != mine:
            yield Finding(name, f"is {shown(mine)}, but that of {where} differs", f"metadata {key}")
            return
