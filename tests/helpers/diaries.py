"""Diaries of drivers that published the files of a run."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.workers.runs.file_hashes import hashes_of
from smoothcert.workers.runs.records import AttemptRecord, DriverRecord
from smoothcert.workers.storage.store import Store


def diary_of(files: dict[str, bytes], *, statuses: dict[str, dict[str, int]] | None = None) -> bytes:
    """What the diary of a driver says that published these files.

    Args:
        files: content by the name relative to the run.
        statuses: what it says of their rows; None: what is right.
    """
    lines = []
    for name, data in files.items():
        hashes = hashes_of(data)
        lines.append(
            AttemptRecord(
                shard=f"{Path(name).stem.partition('-')[2]}.tar",
                outcome="published",
                at_s=1.0,
                statuses=_statuses_of(data) if statuses is None else statuses[name],
                seconds=1.0,
                turn_seconds=1.0,
                decode_wait_seconds=1.0,
                node="node",
                file=name,
                file_sha256=hashes.sha256,
                footer_sha256=hashes.footer_sha256,
            ).encode()
        )
    return b"\n".join([*lines, DriverRecord(node="node").encode(), b""])


def write_diary_of(run: Path, numbers: tuple[int, ...], name: str = "one.jsonl") -> None:
    """Let a driver have published some files of a run in a folder."""
    paths = sorted((run / "votes").iterdir())
    files = {f"votes/{paths[number].name}": paths[number].read_bytes() for number in numbers}
    (run / "drivers").mkdir(exist_ok=True)
    (run / "drivers" / name).write_bytes(diary_of(files))


def publish_diary_of(store: Store, url: str, names: list[str], name: str) -> None:
    """Let a driver have published some files of a run in any store."""
    files = {each: store.read(f"{url}/{each}") for each in names}
    store.publish(url, f"drivers/{name}", diary_of(files))


def _statuses_of(data: bytes) -> dict[str, int]:
    return dict(Counter(pq.read_table(pa.BufferReader(data), columns=["status"])["status"].to_pylist()))
