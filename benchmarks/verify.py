"""What the check of a run costs: `smoothcert verify` on files of made-up votes.

Votes are as networks cast them. Each image has a leading class, whose share of the votes is uniform from 0 to 1. Most
of its other votes are for a few rivals, the rest for any class. Columns of 19 of 224 pixels at stride 1 give 224 votes.

Not covered: reading from S3; `--replay`, which costs what the network costs.

Run from the repository root: python -m benchmarks.verify [--rows 100000] [--processes 2]
"""

import argparse
import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from smoothcert.manifests.identity import VOTES_VERSION, identity_of, run_id_of
from smoothcert.manifests.job import Job
from smoothcert.manifests.shards import Shard
from smoothcert.pipeline.verify.check import verify
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.rows import with_certificates
from smoothcert.workers.runs.layout import RUN_JSON, VOTES, votes_file
from smoothcert.workers.runs.records import CheckpointRecord, FileMetadata, RunRecord, ShardFileRecord, ShardRecord
from smoothcert.workers.runs.votes_table import Row, encode

IMAGENET_ROWS = 1_282_000
ROWS_PER_FILE = 10_000
CLASSES, SIDE, RIVALS, RIVAL_SHARE = 1000, 224, 8, 0.9
MEMBER_BYTES = 2048  # of an image in its tar, with its header and its padding
JOB = {
    "name": "benchmark of verify",
    "images": {"shards": "unused"},
    "model": {"architecture": "unused", "checkpoint": "unused", "classes": CLASSES},
    "ablation": {"kind": "column", "size": 19},
    "output": "unused",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the check of a run.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--keep", type=Path, help="folder of the run: made if it is missing, and kept")
    args = parser.parse_args()
    table, records = Table(title=f"A = {SIDE}, K = {CLASSES:,}, {ROWS_PER_FILE:,} rows a file"), []
    for heading in ("processes", "rows", "seconds", "CPU seconds", "rows/s", f"minutes for {IMAGENET_ROWS:,} rows"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory() as temporary:
        run = args.keep or Path(temporary)
        if not (run / RUN_JSON).exists():
            write_run(run, args.rows)
        for processes in args.processes:
            record = measure(run, processes)
            records.append(record)
            minutes = IMAGENET_ROWS / record["rows_per_s"] / 60
            texts = [f"{record[name]:,.1f}" for name in ("seconds", "cpu_s", "rows_per_s")]
            table.add_row(str(processes), f"{record['rows']:,}", *texts, f"{minutes:.2f}")
    Console().print(table)
    print(json.dumps(records))


def measure(run: Path, processes: int) -> dict[str, Any]:
    """Check the run; CPU seconds are those of all processes."""
    start, cpu_start = time.perf_counter(), sum(os.times()[:4])
    report = verify(str(run), processes=processes)
    seconds, cpu_s = time.perf_counter() - start, sum(os.times()[:4]) - cpu_start
    assert not report.problems, report.problems[:3]
    rate = report.rows / seconds
    return {"processes": processes, "rows": report.rows, "seconds": seconds, "cpu_s": cpu_s, "rows_per_s": rate}


def write_run(run: Path, rows: int) -> None:
    """An unfinished run whose files are all there."""
    job = Job.model_validate(JOB)
    counts = [min(ROWS_PER_FILE, rows - start) for start in range(0, rows, ROWS_PER_FILE)]
    size = MEMBER_BYTES * (ROWS_PER_FILE + 1)
    shards = [Shard(f"{index:05d}.tar", f"{index:05d}.tar", size, "made up", None) for index in range(len(counts))]
    identity = identity_of(job, shards, checkpoint_sha256="0" * 64, checkpoint_key=None, limit=None)
    record = RunRecord(
        run_id=run_id_of(identity),
        name=job.name,
        partial=False,
        identity=identity,
        votes_version=VOTES_VERSION,
        job=job.model_dump(mode="json"),
        checkpoint=CheckpointRecord(url=job.model.checkpoint, sha256="0" * 64, key=None),
        shards=tuple(ShardRecord.of(shard, limit=None) for shard in shards),
    )
    (run / VOTES).mkdir(parents=True)
    (run / RUN_JSON).write_bytes(record.encode())
    for index, (shard, count) in enumerate(zip(shards, counts, strict=True)):
        metadata = FileMetadata(
            run_id=record.run_id,
            shard=ShardFileRecord(name=shard.name, size=shard.size),
            shard_sha256="0" * 64,
            votes_version=VOTES_VERSION,
            geometry=job.ablation.model_dump() | {"crop": SIDE},
        )
        data = encode(_rows(job, shard.name, count, seed=index), SIDE, family_of(job.ablation), metadata)
        (run / votes_file(index, shard.name)).write_bytes(data)


def _rows(job: Job, shard: str, count: int, *, seed: int) -> list[Row]:
    random, family = np.random.default_rng(seed), family_of(job.ablation)
    votes, margins = _votes(random, count), random.random((count, SIDE), np.float32)
    rows = [
        Row(
            key=f"{index:08d}",
            shard=shard,
            index=index,
            image_offset=512 + MEMBER_BYTES * index,
            image_bytes=1500,
            sha256=random.bytes(32),
            status="ok",
            label=int(votes[index, 0]),
            width=500,
            height=375,
            clean_prediction=int(votes[index, 0]),
            clean_margin=1.0,
            votes=votes[index],
            margins=margins[index],
        )
        for index in range(count)
    ]
    ablations = ablations_of(job.ablation, SIDE, SIDE)
    return with_certificates(rows, family, partial(family.certify, ablations=ablations, classes=CLASSES))


def _votes(random: np.random.Generator, images: int) -> NDArray[np.uint16]:
    """[images, ablations]"""
    leader = random.integers(0, CLASSES, (images, 1), dtype=np.uint16)
    rivals = random.integers(0, CLASSES, (images, RIVALS), dtype=np.uint16)
    which = np.minimum(random.geometric(0.4, (images, SIDE)), RIVALS) - 1
    anybody = random.integers(0, CLASSES, (images, SIDE), dtype=np.uint16)
    others = np.where(random.random((images, SIDE)) < RIVAL_SHARE, np.take_along_axis(rivals, which, 1), anybody)
    return np.where(random.random((images, SIDE)) < random.random((images, 1)), leader, others)


if __name__ == "__main__":
    main()
