"""Votes counted again give what the engine and a brute force give."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.manifests.job import load_job
from smoothcert.pipeline.certify.begin import begin
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.pipeline.verify import recount as module
from smoothcert.pipeline.verify.check import verify
from smoothcert.pipeline.verify.frame import Frame
from smoothcert.pipeline.verify.recount import recount
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.certificates.majority import certify
from tests.helpers import jobs
from tests.helpers.rows import file_of
from tests.helpers.tars import tar_of, write_tar
from tests.pipeline.verify.test_frame import frames, touched_sets


@pytest.mark.parametrize("kind", ["column", "row", "block"])
@pytest.mark.parametrize(
    ("size", "stride", "edges"), [(4, 1, "wrap"), (5, 3, "wrap"), (3, 5, "inside"), (16, 6, "wrap")]
)
def test_it_counts_as_the_engine_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, size: int, stride: int, edges: str
) -> None:
    """
    Two implementations that share no code agree on prediction, runner-up and both max columns.
    Oracle: certificates.py, on votes from unanimous to random, five classes.
    """
    jobs.write_shards(tmp_path, shards=1)
    write_tar(tmp_path / "tars", tar_of(jobs.samples(0, 1)) + bytes(512 * 1200), "00.tar")
    ablation = WindowAblation(kind=kind, size=size, stride=stride, edges=edges)
    plan = make_plan(load_job(jobs.write_job(tmp_path), [f"ablation={ablation.model_dump()}", "model.classes=5"]))
    begin(plan)
    geometry, random = ablations_of(ablation, jobs.CROP, jobs.CROP), np.random.default_rng(size)
    A = geometry.num_ablations
    votes = np.where(
        random.random((300, A)) < random.random((300, 1)) ** 3,
        random.integers(0, 5, (300, A)),
        random.integers(0, 5, (300, 1)),
    )
    certificates = {name: values.tolist() for name, values in vars(certify(votes, geometry, classes=5)).items()}
    row = {
        "shard": "00.tar",
        "image_bytes": 100,
        "sha256": bytes(32),
        "status": "ok",
        "label": 0,
        "width": 16,
        "height": 16,
    }
    row |= {"clean_prediction": 0, "clean_margin": 1.0, "margins": np.ones(A, np.float32)}
    rows = [
        row
        | {"key": str(index), "index": index, "image_offset": 512 + 1024 * index, "votes": votes[index]}
        | {name: values[index] for name, values in certificates.items()}
        for index in range(300)
    ]
    metadata = {"run_id": plan.run.run_id, "votes_version": 1, "geometry": ablation.model_dump() | {"crop": jobs.CROP}}
    metadata |= {"shard": {"name": "00.tar", "size": plan.tasks[0].shard.size}, "shard_sha256": "0" * 64}
    plan.run.store.publish(plan.run.url, plan.tasks[0].file_name, file_of(rows, A, metadata))
    report = verify(plan.run.url)
    assert (report.rows, report.problems) == (300, ())
    assert report.notices == ("unfinished: 1 of 1 shards are published",)
    for row in rows:
        row["max_certified_patch"] += 1
        row["max_margin_certified_patch"] -= 1
    (Path(plan.run.url) / plan.tasks[0].file_name).write_bytes(file_of(rows, A, metadata))
    monkeypatch.setattr("smoothcert.pipeline.verify.findings.MAX_REPORTED_ROWS", 300)
    assert len(verify(plan.run.url).problems) == 600


def literally_certified(frame: Frame, votes: list[int], p: int, classes: int, patch_px: int) -> tuple[bool, bool]:
    """The exact rule and the margin rule, word by word: at every location, for every rival."""
    sets = touched_sets(frame, patch_px)
    D = max(map(len, sets))
    exact = margin = True
    for r in set(range(classes)) - {p}:
        n_p, n_r = votes.count(p), votes.count(r)
        margin &= n_p > n_r + 2 * D or (n_p == n_r + 2 * D and p < r)
        for T in sets:
            outside = [vote for number, vote in enumerate(votes) if number not in T]
            u_p, u_r = outside.count(p), outside.count(r)
            exact &= u_p > u_r + len(T) or (u_p == u_r + len(T) and p < r)
    return exact, margin


def literal_recount(frame: Frame, votes: list[int], classes: int) -> dict[str, int]:
    """Every column by its definition; each square size is tried."""
    ranked = sorted(range(classes), key=lambda c: (-votes.count(c), c))
    p, runner_up = ranked[:2]
    sides = range(1, frame.side + 1)
    certified = {side: literally_certified(frame, votes, p, classes, side) for side in sides}
    exact, margin = (max((side for side in sides if certified[side][rule]), default=0) for rule in (0, 1))
    return {
        "prediction": p,
        "count": votes.count(p),
        "runner_up": runner_up,
        "runner_up_count": votes.count(runner_up),
        "max_certified_patch": exact,
        "max_margin_certified_patch": margin,
    }


@given(frames(), st.data())
def test_a_recount_is_what_the_definitions_say(frame: Frame, data: st.DataObject) -> None:
    """
    Whatever the stored square says, and however many images are counted at once.
    Oracle: docs/certificates.md, read literally, for images of at most 6 x 6 pixels and four classes.
    """
    classes = data.draw(st.integers(2, 4))
    # Votes from a few classes, so that many images have a clear lead and many are at the edge.
    vote = st.sampled_from([0, 0, 0, classes - 1, classes - 1, *range(classes)])
    row = st.lists(vote, min_size=frame.num_ablations, max_size=frame.num_ablations)
    votes = data.draw(st.lists(row, min_size=1, max_size=4))
    stored = data.draw(st.lists(st.integers(-1, frame.side + 1), min_size=len(votes), max_size=len(votes)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "NUMBERS_AT_ONCE", data.draw(st.sampled_from([1, 2 * frame.num_ablations, 2**22])))
        found = recount(frame, np.array(votes), classes, np.array(stored))
    for number, image in enumerate(votes):
        expected = literal_recount(frame, image, classes)
        assert {each.name: int(getattr(found, each.name)[number]) for each in fields(found)} == expected
