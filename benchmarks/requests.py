"""Requests and bytes that a run in S3 costs its driver and `smoothcert status`, for each shard.

The server is moto, in this process, with made-up runs of two sizes. What grows with the number of shards is the
difference of the two. The time at 100,000 shards is computed: each request takes 20 ms, those that read files go side
by side, and those that list follow each other. Bytes, and the work on what was read, come on top.

Run from the repository root: python -m benchmarks.requests [--shards 50 200] [--rows 1000]
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.made_up_runs import write_run
from smoothcert.pipeline.fleet.seen import Seen
from smoothcert.pipeline.overview.status import status_of
from smoothcert.pipeline.overview.summary import summarise
from smoothcert.workers.runs.layout import SUCCESS, VOTES
from smoothcert.workers.runs.published import RANGE_READERS
from smoothcert.workers.runs.records import SuccessRecord
from smoothcert.workers.runs.run import Run, open_run
from smoothcert.workers.storage.s3_store import S3Store
from tests.helpers.counted_requests import Counted, copy_to, counted, store_in_moto
from tests.helpers.diaries import publish_diary_of

MANY, REQUEST_S, KEYS_PER_LISTING = 100_000, 0.02, 1000
LIST = "LIST"


class Cost(NamedTuple):
    """What each shard adds.

    Attributes:
        listed: requests that list.
        read: requests that read, or look for, a file.
        received: bytes.
    """

    listed: float
    read: float
    received: float

    def seconds_at_many(self, threads: int) -> float:
        """At 100,000 shards and 20 ms for each request."""
        return MANY * REQUEST_S * (self.listed + self.read / threads)


def hand_out(run: Run) -> None:
    """Ask of each shard whether another driver has published it."""
    seen = Seen(run.published)
    for task in run.tasks:
        seen.has(task)


def conclude(run: Run) -> None:
    """What the end of a run reads."""
    summarise(run, run.job)


def cases(store: S3Store, shards: int, rows: int) -> Iterator[tuple[str, int, Counted]]:
    """Each case, the threads that read in it, and what it costs in a run of so many shards."""
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder) / "run", shards * rows, rows_per_file=rows, distinct_files=1)
        url = f"s3://bucket/{shards}"
        copy_to(store, Path(folder) / "run", url)
    run = Run(url, open_run(url).record, store)

    def count(work: Callable[[Run], object]) -> Counted:
        with counted(store) as found:
            work(run)
        return found

    yield "hand-outs of a resumed run, for each listing", 1, count(hand_out)
    yield "`status`, no driver has ended", RANGE_READERS, count(status_of)
    yield "end of a run whose drivers were all killed", RANGE_READERS, count(conclude)
    names = [task.file_name for task in run.tasks]
    publish_diary_of(store, url, names[: shards // 2], "one.jsonl")
    yield "end of a run, a driver of half of it was killed", RANGE_READERS, count(conclude)
    publish_diary_of(store, url, names[shards // 2 :], "two.jsonl")
    yield "`status`, all drivers have ended", RANGE_READERS, count(status_of)
    yield "end of a run", RANGE_READERS, count(conclude)
    summary = summarise(run, run.job)
    record = SuccessRecord(rows=summary.images, files=summary.files, **summary.figures().as_json())
    store.publish(url, SUCCESS, record.encode())
    yield "`status`, the run is complete", RANGE_READERS, count(status_of)


def cost_of(few: Counted, many: Counted, shards: int) -> Cost:
    """What each of the further shards adds; a listing costs a request for 1,000 of them."""
    added = many.requests - few.requests
    listed = many.requests[LIST] / KEYS_PER_LISTING
    read = (added.total() - added[LIST]) / shards
    return Cost(listed, read, (many.received - few.received) / shards)


def main() -> None:
    parser = argparse.ArgumentParser(description="Count requests and bytes.")
    parser.add_argument("--shards", type=int, nargs=2, default=[50, 200])
    parser.add_argument("--rows", type=int, default=1000, help="of a file")
    args = parser.parse_args()
    table = Table("", "requests", "of them LIST", "kB", "threads", "s at 100,000 shards", "GB at 100,000 shards")
    records = []
    with store_in_moto() as store:
        few, many = (list(cases(store, shards, args.rows)) for shards in args.shards)
    file_kb = 0.0
    for (name, threads, small), (_, _, large) in zip(few, many, strict=True):
        cost = cost_of(small, large, args.shards[1] - args.shards[0])
        seconds, kb = cost.seconds_at_many(threads), cost.received / 1e3
        records.append({"case": name, "threads": threads, **cost._asdict(), "seconds": seconds})
        requests = f"{cost.listed + cost.read:.3f}"
        table.add_row(
            name, requests, f"{cost.listed:.3f}", f"{kb:.2f}", f"{threads}", f"{seconds:.0f}", f"{kb * MANY / 1e6:.2f}"
        )
        file_kb = max(file_kb, kb)
    Console().print(table)
    print(f"{VOTES}/ has files of about {file_kb:.0f} kB")
    print(json.dumps(records))


if __name__ == "__main__":
    main()
