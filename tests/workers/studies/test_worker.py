"""A part of a study: every chosen image is one row, in tar order, whatever is wrong with it."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from smoothcert.manifests.errors import RequestError, ShardError
from smoothcert.manifests.studies import PatchAttack, Sensitivity
from smoothcert.pipeline.studies.plan import plan_study
from smoothcert.pipeline.studies.selection import Choice
from smoothcert.workers.runs.run import open_run
from smoothcert.workers.runs.shard_task import ShardReport
from smoothcert.workers.runs.votes_table import METADATA_KEY
from smoothcert.workers.studies import worker as working
from smoothcert.workers.studies.measures import Studied
from smoothcert.workers.studies.worker import StudyWorker
from smoothcert.workers.tars import card_decoder
from smoothcert.workers.tars.card_decoder import CardDecoder
from tests.helpers import finished_runs

PATCH = PatchAttack(height=2, width=2)


class Noting:
    """Remembers what it is given; an image's row says its seed."""

    forwards = 0

    def __init__(self, *_: object) -> None:
        self.seen = list[Studied]()

    def measure(self, images: Studied) -> list[dict[str, Any]]:
        self.seen.append(images)
        return [{"places": seed % 1000} for seed in images.seeds]


@pytest.fixture
def noting(monkeypatch: pytest.MonkeyPatch) -> Noting:
    """In place of any kind, with and without votes."""
    made, kind_of = Noting(), working.kind_of
    monkeypatch.setattr(working, "kind_of", lambda settings: kind_of(settings)._replace(measures=lambda *_: made))
    return made


def worker_of(folder: Path, chosen: list[int], shard: int = 1, settings: Any = PATCH, seed: int = 0) -> Any:
    """The worker, and the only part."""
    plan = plan_study(
        open_run(folder), settings, Choice(None, seed), lambda: iter([(shard, np.array(chosen, np.int64))])
    )
    return StudyWorker(plan.study, threads=1), plan.todo[0]


def rows_of(folder: Path, *arguments: Any, **options: Any) -> list[dict[str, Any]]:
    worker, task = worker_of(folder, *arguments, **options)
    *_, report = worker.work(task)
    assert isinstance(report, ShardReport)
    rows: list[dict[str, Any]] = pq.read_table(folder / task.file_name).to_pylist()
    assert report.statuses == {
        "ok": sum(row["error"] is None for row in rows),
        "error": sum(row["error"] is not None for row in rows),
    }
    return rows


def test_the_chosen_images_are_rows_with_the_stored_votes(run: Path, noting: Noting) -> None:
    stored = finished_runs.rows_of(finished_runs.file_of(run, 0))
    rows = rows_of(run, [1, 3, 4], shard=0)
    assert [row["index"] for row in rows] == [1, 3, 4]
    assert [(row["key"], row["sha256"], row["label"]) for row in rows] == [
        (stored[place]["key"], stored[place]["sha256"], stored[place]["label"]) for place in (1, 3, 4)
    ]
    (seen,) = noting.seen
    assert seen.votes is not None
    assert seen.votes.tolist() == [stored[place]["votes"] for place in (1, 3, 4)]


def test_an_image_without_votes_is_a_row_with_the_reason(run: Path, noting: Noting) -> None:
    """The second shard has an image that is none, one of another size, and one with a wrong label."""
    rows = rows_of(run, [*range(7)])
    errors = {row["key"]: row["error"] for row in rows if row["error"] is not None}
    assert errors.keys() == {"c", "d"}
    assert errors["c"].startswith("decode_error: ")
    assert errors["d"].startswith("size_error: ")
    assert all(row["places"] is None for row in rows if row["error"] is not None)
    assert sum(len(seen.seeds) for seen in noting.seen) == 5


def test_an_image_that_voted_otherwise_is_refused(run: Path, noting: Noting) -> None:
    """Its votes are of other bytes."""
    rows = finished_runs.rows_of(finished_runs.file_of(run, 0))
    rows[2]["sha256"] = bytes(32)
    finished_runs.write(finished_runs.file_of(run, 0), rows, renew=True)
    worker, task = worker_of(run, [2], shard=0)
    with pytest.raises(ShardError, match=r"00\.tar: image .* is not the one that voted"):
        list(worker.work(task))
    assert not noting.seen


def test_an_image_that_the_tar_does_not_have_is_missed(run: Path, noting: Noting) -> None:
    worker, task = worker_of(run, [1, 99], shard=0, settings=Sensitivity())
    with pytest.raises(ShardError, match=r"00\.tar: it lacks 1 of the images to measure"):
        list(worker.work(task))
    assert noting.seen


def test_the_seed_of_an_image_follows_from_the_study_and_its_bytes(run: Path, noting: Noting) -> None:
    """Not from the other images."""
    other = PATCH.model_copy(update={"steps": 9})
    alone, together = rows_of(run, [3], shard=0), rows_of(run, [0, 3], shard=0, settings=other)
    assert alone[0]["places"] == together[1]["places"] != together[0]["places"]
    assert rows_of(run, [3], shard=0, seed=1)[0]["places"] != alone[0]["places"]


def test_long_work_beats_as_long_as_it_makes_progress(
    run: Path, noting: Noting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "_LOOK_S", 0.05)

    def slow(images: Studied) -> list[dict[str, Any]]:
        for _ in range(10):
            time.sleep(0.05)
            noting.forwards += 1
        return [{} for _ in images.seeds]

    noting.measure = slow  # type: ignore[method-assign]
    worker, task = worker_of(run, [0, 1], shard=0)
    *beats, report = worker.work(task)
    assert beats.count(0) >= 3
    assert set(beats) == {0}  # the last batch is published, not announced
    assert report.rows == 2


def test_a_machine_without_the_decoder_of_the_run_is_refused(
    tmp_path: Path, noting: Noting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it reads the tar; with the decoder it measures, and its files name it."""
    with monkeypatch.context() as patch:
        patch.setattr(card_decoder, "_card", lambda: CardDecoder(torch.device("cpu")))
        preprocess = {"resize": None, "crop": finished_runs.jobs.CROP, "decoder": "nvjpeg"}
        folder = finished_runs.finish(tmp_path, preprocess=preprocess)
        worker, task = worker_of(folder, [0, 1], shard=0)
        *_, report = worker.work(task)
        assert report.statuses == {"ok": 2, "error": 0}
        described = json.loads(pq.read_schema(folder / task.file_name).metadata[METADATA_KEY])
        assert described["decoder"].startswith("nvJPEG of torchvision ")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    card_decoder._card.cache_clear()
    worker, task = worker_of(folder, [0, 1], shard=1, seed=1)
    with pytest.raises(RequestError, match=r"^preprocess\.decoder: nvjpeg needs a GPU"):
        list(worker.work(task))
