"""Nights of suites over runs with given votes: all but the pass over the images is real."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from smoothcert.manifests.gates import Gates
from smoothcert.manifests.job import Job
from smoothcert.manifests.suite import Suite
from smoothcert.pipeline.certify.outcome import Outcome, Work
from smoothcert.pipeline.nightly import night
from smoothcert.pipeline.nightly.history import History
from smoothcert.pipeline.nightly.records import AcceptanceRecord, ChangeRecord, CostRecord, EntryRecord, NightRecord
from smoothcert.pipeline.overview.summary import summarise
from smoothcert.workers.runs.records import CertifiedRecord, FiguresRecord
from smoothcert.workers.runs.run import Run
from tests.helpers.judged_runs import JOB, Image, image, judged_run

SURE = [0] * 12
"""Every vote for class 0: certified against 1 x 1 and 2 x 2."""
CLOSE = [0] * 7 + [1] * 5
"""Class 0 leads by two votes: no certificate."""
LABELLED = {"shards": "unused", "label": "cls"}


def one_shard(sure: int, close: int = 0) -> dict[str, list[Image]]:
    """Images 0, 1, ... of a.tar; the first are certified."""
    return {"a.tar": [image(str(key), SURE if key < sure else CLOSE) for key in range(sure + close)]}


def suite_of(output: Path, entries: Sequence[str] = ("small",), **fields: Any) -> Suite:
    """A suite whose runs lie in this folder; its entries have gates if they are given."""
    jobs = {
        name: Job.model_validate(JOB | {"name": f"night: {name}", "output": str(output), "images": LABELLED})
        for name in entries
    }
    return Suite(**{"name": "night", "jobs": jobs} | fields)


def gates_of(*gates: Mapping[str, Any]) -> Gates:
    return Gates.model_validate({"gates": gates})


def made(output: Path, shards: Mapping[str, Sequence[Image]], *, weights: str = "0", **options: Any) -> Run:
    """A run in this output; another digit of the weights is another run."""
    return judged_run(output, shards, weights=weights, images=LABELLED, **options)


def complete(run: Run, *problems: str, computed: int = 1, adopted: int = 0) -> Outcome:
    """The outcome of a complete run."""
    work = Work(computed, {"0" * 16: adopted} if adopted else {}, images=10, seconds=2.5, turn_seconds=2.0)
    return Outcome("complete", problems, run, summarise(run, run.job).figures(), work)


def unfinished(run: Run, *problems: str) -> Outcome:
    return Outcome("unfinished", problems, run, summarise(run, run.job).figures(), Work(computed=1))


def history_of(suite: Suite) -> History:
    job = next(iter(suite.jobs.values()))
    return History(job.output, job.storage)


def baseline_of(suite: Suite, entry: str = "small") -> str | None:
    """The run that is the baseline of an entry."""
    found = history_of(suite).baseline(suite.name, entry)
    return None if found is None else found.run_id


def a_night(
    monkeypatch: pytest.MonkeyPatch, suite: Suite, outcomes: Mapping[str, Outcome], **options: Any
) -> tuple[int, NightRecord]:
    """Run a night whose pass over the images has these outcomes: its exit code and its record."""
    monkeypatch.setattr(night, "certify_entries", lambda *_args, **_options: outcomes)
    code = night.nightly(suite, **options)
    return code, history_of(suite).nights().records[-1]


def recorded(number: int, *entries: EntryRecord, suite: str = "night", exit_code: int = 0) -> NightRecord:
    """A made-up record of a night in November."""
    at = f"2026-11-{number:02d}T02:00:00+00:00"
    name = f"202611{number:02d}T020000000000Z-{number:08x}"
    return NightRecord(
        night=name, suite=suite, began=at, ended=at, seconds=60.0, version="0", exit_code=exit_code, entries=entries
    )


def made_up_nights(count: int) -> tuple[list[NightRecord], list[AcceptanceRecord]]:
    """Nights of three entries; the fifth is unfinished, and in the seventh a gate trips."""
    nights = []
    for number in range(1, count + 1):
        verdict = {5: "unfinished", 7: "gate tripped"}.get(number, "gates hold")
        share = 0.6 + 0.01 * (number % 5)
        entries = [
            EntryRecord(
                entry=entry,
                job="j",
                run_id=f"{number:016x}",
                state="unfinished" if verdict == "unfinished" else "complete",
                verdict=verdict,
                sentence=f"{entry}: {verdict}",
                figures=FiguresRecord(
                    images=1000,
                    clean_accuracy=share + 0.2,
                    smoothed_accuracy=share + 0.1,
                    certified=tuple(CertifiedRecord(patch=(side, side), exact=share, margin=share) for side in (8, 32)),
                ),
                changes=(
                    ChangeRecord(measure="certified", patch=(8, 8), rule="exact", lost=number, gained=40 - number),
                ),
                cost=CostRecord(computed=1, adopted={"0" * 16: 19}, seconds=60.0),
                report=f"reports/{number}/{entry}/report.html",
                comparison=f"reports/{number}/{entry}/compare.html",
            )
            for entry in ("small", "large", "an-entry-with-a-rather-long-name")
        ]
        nights.append(recorded(number, *entries, exit_code={"unfinished": 3, "gate tripped": 1}.get(verdict, 0)))
    accepted = [
        AcceptanceRecord(suite="night", entry=one.entry, run_id=f"{3:016x}", at=nights[2].began, by="accept")
        for one in nights[0].entries
    ]
    return nights, accepted
