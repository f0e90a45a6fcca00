"""The run id changes with what determines the votes, and with nothing else."""

import pytest

from smoothcert.manifests.identity import differences, identity_of, run_id_of
from smoothcert.manifests.job import Job
from smoothcert.manifests.shards import Shard

JOB = {
    "name": "n",
    "images": {"shards": "x.tar"},
    "model": {"architecture": "vit_tiny_patch16_224", "checkpoint": "w.pt", "classes": 10},
    "ablation": {"kind": "column", "size": 19},
    "output": "o",
}
SHARDS = (Shard("a.tar", "/here/a.tar", 10240, "x"), Shard("b.tar", "/here/b.tar", 20480, "y"))


def run_id(change=None, *, shards=SHARDS, checkpoint_sha256="00", checkpoint_key=None, limit=None):
    job = {
        **JOB,
        **{
            key: {**JOB.get(key, {}), **value} if isinstance(value, dict) else value
            for key, value in (change or {}).items()
        },
    }
    return run_id_of(
        identity_of(
            Job.model_validate(job),
            shards,
            checkpoint_sha256=checkpoint_sha256,
            checkpoint_key=checkpoint_key,
            limit=limit,
        )
    )


@pytest.mark.parametrize(
    "change",
    [
        {"images": {"image": ["jpg"]}},
        {"images": {"label": None}},
        {"images": {"version": "2"}},
        {"images": {"first_label": 1}},
        {"images": {"label_names": ["a", "b"]}},
        {"model": {"architecture": "vit_small_patch16_224"}},
        {"model": {"options": {"depth": 6}}},
        {"model": {"ignore": ["criterion.*"]}},
        {"model": {"classes": 11}},
        {"model": {"dtype": "bfloat16"}},
        {"model": {"masked_tokens": "keep"}},
        {"preprocess": {"resize": 300}},
        {"preprocess": {"squash": True}},
        {"preprocess": {"crop": 192}},
        {"preprocess": {"interpolation": "bicubic"}},
        {"preprocess": {"mean": [0.5, 0.5, 0.5]}},
        {"preprocess": {"std": [0.5, 0.5, 0.5]}},
        {"preprocess": {"upsample": 7}},
        {"preprocess": {"orient": True}},
        {"preprocess": {"decoder": "nvjpeg"}},
        {"ablation": {"kind": "row"}},
        {"ablation": {"size": 20}},
        {"ablation": {"stride": 2}},
        {"ablation": {"edges": "inside"}},
        {"clean": False},
    ],
)
def test_id_changes_with_every_field_that_determines_votes(change):
    """Such a field starts another run."""
    assert run_id(change) != run_id()


def test_id_changes_with_the_version_of_ones_own_code():
    """The name of a function does not say what it does."""
    code = [{"model": {"architecture": "python:mine:vit", "code_version": version}} for version in ("1", "2")]
    assert run_id(code[0]) != run_id(code[1])


def test_id_changes_with_data_and_weights():
    """Shard names, sizes and order, the checkpoint, its key, and a limit that is reached."""
    others = [
        run_id(shards=SHARDS[::-1]),
        run_id(shards=SHARDS[:1]),
        run_id(shards=(SHARDS[0], Shard("b.tar", "/here/b.tar", 30720, "y"))),
        run_id(checkpoint_sha256="01"),
        run_id(checkpoint_key="model"),
        run_id(limit=5),
    ]
    assert len({run_id(), *others}) == len(others) + 1


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"patches": [3]},
        {"output": "elsewhere"},
        {"execution": {"actors": 7}},
        {"storage": {"region": "r"}},
        {"storage": {"anonymous": True}},
        {"storage": {"requester_pays": True}},
        {"max_error_share": 0.5},
        {"images": {"shards": "elsewhere/*.tar"}},
        {"images": {"label_names": None}},
        {"model": {"checkpoint": "moved.pt"}},
        {"clean": True},
        {"model": {"ignore": []}},
        {"model": {"class_names": [f"class {number}" for number in range(10)]}},
        {"preprocess": {"crop": 224, "resize": 256, "upsample": 1, "orient": False, "squash": False}},
        {"preprocess": {"decoder": "pillow"}},
    ],
)
def test_id_does_not_change_with_places_names_and_execution(change):
    """Neither do defaults that are written out, nor tars that were moved."""
    moved = tuple(Shard(shard.name, f"/moved/{shard.name}", shard.size, "z") for shard in SHARDS)
    assert run_id(change, shards=moved) == run_id()
    assert len(run_id()) == 16


def test_the_id_of_a_plain_job_stays() -> None:
    """As it was before the newest keys of the job file, which are left out."""
    assert run_id() == "5bfc57dd9f990406"


def test_differences_are_key_paths():
    """A key that is left out differs from one that is null; lists differ as a whole."""
    then = {"a": {"b": 1, "c": [1, 2]}, "same": {"x": 1}}
    now = {"a": {"b": 1, "c": [1]}, "same": {"x": 1}, "new": None}
    assert differences(then, now) == ["a.c", "new"]
    assert differences(now, then) == ["a.c", "new"]
    assert differences(then, then) == []
