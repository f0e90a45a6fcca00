"""What a driver costs: its own seconds and memory for each shard, with actors that do nothing.

The driver hands out shards, listens and keeps its diary as in a real run; the actors answer at once. A shard should
cost as much among 10,000 as among 100. Not measured: the summary, which reads each published file once.

Run from the repository root: python -m benchmarks.driver [--shards 100 1000 10000]
"""

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from smoothcert.manifests.job import Job, Storage
from smoothcert.manifests.shards import Shard
from smoothcert.pipeline.certify.actor import CertifierActor
from smoothcert.pipeline.certify.diary import Diary
from smoothcert.pipeline.certify.plan import Plan
from smoothcert.pipeline.cluster.connection import connect
from smoothcert.pipeline.cluster.resources import Share
from smoothcert.pipeline.fleet.fleet import Fleet
from smoothcert.pipeline.fleet.progress import Lines
from smoothcert.workers.runs.records import CheckpointRecord, RunRecord, ShardRecord
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.shard_task import ShardReport, ShardTask
from smoothcert.workers.storage.store import AnyStore

JOB = {
    "name": "driver",
    "images": {"shards": "unused"},
    "model": {"architecture": "unused", "checkpoint": "unused", "classes": 2},
    "ablation": {"kind": "column", "size": 19},
    "output": "unused",
}


class InstantActor(CertifierActor):
    """An actor whose shards are done at once."""

    def certify(self, task: ShardTask, run_ids: Sequence[str]) -> Iterator[Any]:
        yield 1
        yield ShardReport(
            run_ids[0], task, {"ok": 1000}, seconds=1.0, turn_s=1.0, waited_s=0.0, published=True, node="fake"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the driver.")
    parser.add_argument("--shards", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--actors", type=int, default=2)
    args = parser.parse_args()
    connect()
    table, records = Table("shards", "seconds", "ms a shard", "driver's CPU ms a shard", "driver MiB"), []
    with tempfile.TemporaryDirectory() as folder:
        measure(100, args.actors, Path(folder))  # warms up: the first actors take long to start
        for shards in args.shards:
            record = measure(shards, args.actors, Path(folder))
            records.append(record)
            table.add_row(*(f"{value:,}" for value in record.values()))
    Console().print(table)
    print(json.dumps(records))


def measure(shards: int, actors: int, folder: Path) -> dict[str, float]:
    """Time from the first shard to the last, and the memory of this process."""
    plan = _plan(shards, folder / str(shards))
    fleet = Fleet([plan], Share(cpus=1, gpus=0, actors=actors), InstantActor)
    fleet.first_member()
    with Path(os.devnull).open("w") as nowhere:
        progress, diary = Lines(Console(file=nowhere), shards), Diary(plan.run)
        start, cpu = time.perf_counter(), time.process_time()
        for event in fleet.work(plan.todo):
            diary.write(event)
            progress.show(event)
        diary.publish()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    return {
        "shards": shards,
        "seconds": round(seconds, 2),
        "ms_a_shard": round(1e3 * seconds / shards, 3),
        "cpu_ms_a_shard": round(1e3 * cpu_seconds / shards, 3),
        "driver_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10),
    }


def _plan(shards: int, folder: Path) -> Plan:
    tars = [Shard(f"{n:06d}.tar", f"{n:06d}.tar", 1, "") for n in range(shards)]
    record = RunRecord(
        run_id="fake",
        name="driver",
        partial=False,
        identity={},
        job=JOB,
        checkpoint=CheckpointRecord(sha256="", key=None),
        shards=tuple(ShardRecord.of(tar, limit=None) for tar in tars),
    )
    run = Run(str(folder), record, AnyStore(Storage()))
    return Plan(Job.model_validate(JOB), run, "", None, "", run.tasks, run.tasks)


if __name__ == "__main__":
    main()
