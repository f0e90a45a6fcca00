"""Records and the bytes of their files: those that the first version wrote, for old and new content."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.manifests.shards import Shard
from smoothcert.workers.runs.json_file import Record, parse
from smoothcert.workers.runs.records import (
    AttemptRecord,
    CertifiedRecord,
    CheckpointRecord,
    DriverRecord,
    FiguresRecord,
    FileMetadata,
    IntroductionRecord,
    RunRecord,
    ShardFileRecord,
    ShardRecord,
    SuccessRecord,
    TrainingRecord,
)
from smoothcert.workers.tars.tar_headers import LeftOut

SHARDS = [Shard("a.tar", "s3://b/a.tar", 10240, "etag"), Shard("ブ b.tar", "/data/ブ b.tar", 20480, "path 1.5", 3)]
JOB: dict[str, Any] = {"name": "ブ", "model": {"options": {"depth": 1}}, "patches": [1, 2], "max_error_share": 0.01}
IDENTITY = {"images": {"shards": [["a.tar", 10240]]}, "votes_version": 1, "model": {"z": 1, "a": None}}
ENVIRONMENT = {"versions": {"torch": "2.15.0", "pillow": "13"}, "decoder": "Pillow 13", "device": "cpu x86_64"}
FIGURES: dict[str, Any] = {
    "images": 9,
    "status": {"ok": 8, "label_error": 1},
    "clean_accuracy": None,
    "smoothed_accuracy": 1 / 3,
    "bad_labels": 1,
    "first_bad_label": "key: 'ブ' is no whole number",
    "rotated_images": 0,
    "system_members": 2,
    "samples_without_image": 3,
    "suffixes_without_image": ["bmp", "gif"],
    "certified": [{"patch": [2, 2], "exact": 0.25, "margin": None}],
}
CERTIFIED = (CertifiedRecord(patch=(2, 2), exact=0.25, margin=None),)


def test_run_json_has_the_bytes_of_the_first_version() -> None:
    """Indented by one, keys sorted; a shard has its fields and its limit."""
    old = {
        "run_id": "0123456789abcdef",
        "name": "ブ",
        "partial": True,
        "created": "2026-01-01T00:00:00+00:00",
        "identity": IDENTITY,
        "votes_version": 1,
        "job": JOB,
        "checkpoint": {"url": "weights.pt", "sha256": "f" * 64, "key": None},
        "shards": [
            {name: getattr(shard, name) for name in ("name", "url", "size", "fingerprint", "images")} | {"limit": limit}
            for shard, limit in zip(SHARDS, (None, 2), strict=True)
        ],
        "versions": {"python": "3.11", "ray": "2"},
    }
    new = RunRecord(
        run_id="0123456789abcdef",
        name="ブ",
        partial=True,
        created="2026-01-01T00:00:00+00:00",
        identity=IDENTITY,
        votes_version=1,
        job=JOB,
        checkpoint=CheckpointRecord(url="weights.pt", sha256="f" * 64, key=None),
        shards=tuple(map(ShardRecord.of, SHARDS, (None, 2))),
        versions={"python": "3.11", "ray": "2"},
    )
    assert new.encode() == json.dumps(old, indent=1, sort_keys=True).encode()
    marked = new.model_copy(update={"unsafe_overwrite": True})
    assert marked.encode() == json.dumps(old | {"unsafe_overwrite": True}, indent=1, sort_keys=True).encode()


def test_success_has_the_bytes_of_the_first_version() -> None:
    """Rows, shards, figures and files; indented by one, keys sorted."""
    files = {"votes/00001-b.parquet": "f" * 64, "votes/00000-a.parquet": "0" * 64}
    old = {"rows": 9, "shards": 2, **FIGURES, "files": files}
    figures = FiguresRecord(**FIGURES)
    new = SuccessRecord(rows=9, shards=2, files=files, **figures.as_json())
    assert new.encode() == json.dumps(old, indent=1, sort_keys=True).encode()
    assert new.certified == figures.certified == CERTIFIED


def test_figures_are_printed_in_the_order_of_the_first_version() -> None:
    """`certify --json` prints them as they come."""
    assert json.dumps(FiguresRecord(**FIGURES).as_json()) == json.dumps(FIGURES)


@pytest.mark.parametrize("logits", [[1.5, -2.25, 1e-9], [float("nan"), float("inf"), 0.1]])
def test_introduction_has_the_bytes_of_the_first_version(logits: list[float]) -> None:
    """One line in the order of the fields; logits as float32 gives them."""
    numbers = np.array(logits, np.float32).tolist()
    old = {"node": "node", "environment": ENVIRONMENT, "votes_version": 1, "logits": numbers}
    new = IntroductionRecord(node="node", environment=ENVIRONMENT, votes_version=1, logits=tuple(numbers))
    assert new.encode() == json.dumps(old).encode()
    again = parse(IntroductionRecord, new.encode(), "file")
    np.testing.assert_array_equal(np.array(again.logits, np.float32), np.array(logits, np.float32))


@pytest.mark.parametrize("counts", [None, [3, 4]])
def test_training_json_has_the_bytes_of_the_first_version(counts: list[int] | None) -> None:
    """Indented by one, in the order of the fields."""
    old = {"training": JOB, "identity": IDENTITY, "images": counts}
    new = TrainingRecord(training=JOB, identity=IDENTITY, images=None if counts is None else tuple(counts))
    assert new.encode() == json.dumps(old, indent=1).encode()


def test_records_keep_no_key_of_a_url() -> None:
    """Runs and weights are given to others. All other text stays, whatever it looks like."""
    url, plain = "https://me:KEY@h/a.tar?sig=KEY", "https://h/a.tar"
    images = {"shards": [url, "s3://b/what?.tar"], "label_names": url, "version": "https://h/?v=1"}
    kept = {"shards": [plain, "s3://b/what?.tar"], "label_names": plain, "version": "https://h/?v=1"}
    job = {"name": "https://h/?n", "images": images, "model": {"checkpoint": url}}
    recorded = {"name": "https://h/?n", "images": kept, "model": {"checkpoint": plain}}
    training = TrainingRecord(training=job | {"validation": {"images": {"shards": url}}}, identity=IDENTITY)
    assert json.loads(training.encode())["training"] == recorded | {"validation": {"images": {"shards": plain}}}
    run = RunRecord(
        run_id="0",
        name="n",
        partial=False,
        identity=IDENTITY,
        job=job,
        checkpoint=CheckpointRecord(url=url, sha256="0", key=None),
        shards=(ShardRecord.of(Shard("a.tar", url, 1, "v1"), None),),
    )
    content = json.loads(run.encode())
    assert (content["job"], content["checkpoint"]["url"], content["shards"][0]["url"]) == (recorded, plain, plain)
    assert (run.shards[0].url, run.job) == (url, job)


def test_metadata_have_the_bytes_of_the_first_version() -> None:
    """One line, keys sorted."""
    old = {
        "run_id": "0123456789abcdef",
        "shard": {"name": "a.tar", "size": 10240, "fingerprint": "etag"},
        "shard_sha256": "f" * 64,
        "votes_version": 1,
        "geometry": {"kind": "column", "size": 19, "stride": 1, "edges": "wrap", "crop": 224},
        "images_per_batch": 16,
        "system_members": 1,
        "samples_without_image": 2,
        "suffixes_without_image": ["bmp"],
        "rotated_images": 3,
        "seconds": 1.125,
        **ENVIRONMENT,
        "columns_sha256": "0" * 64,
    }
    new = FileMetadata(**old | {"shard": ShardFileRecord(name="a.tar", size=10240, fingerprint="etag")})
    assert new.encode() == json.dumps(old, sort_keys=True).encode()
    assert new.environment == ENVIRONMENT
    assert new.left_out == LeftOut(1, 2, frozenset({"bmp"}))


ATTEMPTS = [
    {"shard": "a.tar", "outcome": "found", "at_s": 0.125},
    {"shard": "a.tar", "outcome": "requeued", "at_s": 1.0, "reason": "its actor died"},
    {
        "shard": "a.tar",
        "outcome": "published",
        "at_s": 2.0,
        "statuses": {"ok": 3},
        "seconds": 1.5,
        "turn_seconds": 1.0,
        "decode_wait_seconds": 0.5,
        "node": "node",
    },
]
DRIVER = {"node": "node", "began": "2026-01-01T00:00:00+00:00", "seconds": 2.5, "images": 3, "images_per_second": None}


@pytest.mark.parametrize(("model", "old"), [*((AttemptRecord, one) for one in ATTEMPTS), (DriverRecord, DRIVER)])
def test_a_diary_has_the_lines_of_the_first_version(model: type[Record], old: dict[str, Any]) -> None:
    """One line each, in the order of the fields, of which an attempt has those of its outcome."""
    assert model(**old).encode() == json.dumps(old).encode()


MODELS: dict[str, type[Record]] = {"run.json": RunRecord, "_SUCCESS": SuccessRecord}


@pytest.mark.parametrize("name", MODELS)
def test_files_of_real_runs_are_encoded_as_they_are(any_run: Path, name: str) -> None:
    """Read and encoded again, run.json and _SUCCESS of each kind of run are the same bytes."""
    data = (any_run / name).read_bytes()
    record = parse(MODELS[name], data, name)
    assert record.encode() == data
    assert not record.model_extra


def test_metadata_of_real_files_are_encoded_as_they_are(any_run: Path) -> None:
    """The same for what Parquet files say of themselves."""
    for file in (any_run / "votes").iterdir():
        data = pq.read_schema(file).metadata[b"smoothcert"]
        metadata = parse(FileMetadata, data, file.name)
        assert metadata.encode() == data
        assert not metadata.model_extra
        assert metadata.shard is not None
        assert not metadata.shard.model_extra


OLDER = {  # without the keys that came later
    RunRecord: {
        "run_id": "0", "name": "a", "partial": False, "identity": {}, "job": {},
        "checkpoint": {"sha256": "0", "key": None}, "shards": [],
    },
    SuccessRecord: {"rows": 3, "files": {}},
    FileMetadata: {"run_id": "0"},
    TrainingRecord: {"training": {}, "identity": {}},
    AttemptRecord: {"shard": "a.tar", "outcome": "found"},
    DriverRecord: {"node": "node"},
}  # fmt: skip


@pytest.mark.parametrize("model", OLDER)
def test_an_older_file_is_read_and_stays_as_it_is(model: type[Record]) -> None:
    """Keys that it lacks have a default, which is not written into it."""
    old = OLDER[model]
    record = parse(model, json.dumps(old), "file")
    assert json.loads(record.encode()) == old


def test_an_older_file_of_votes_left_nothing_out() -> None:
    """It has no counts, and its environment is unknown."""
    metadata = parse(FileMetadata, '{"run_id": "0"}', "file")
    assert (metadata.left_out, metadata.rotated_images) == (LeftOut(), 0)
    assert metadata.environment == {"versions": None, "decoder": None, "device": None}


TEXTS = st.text("a é\n", max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("xyz", min_size=1), VALUES, max_size=4))
def test_keys_of_a_newer_version_are_kept(more: dict[str, Any]) -> None:
    """Whatever they hold, they are written again as they were."""
    for model, old in OLDER.items():
        assert json.loads(parse(model, json.dumps(old | more), "file").encode()) == old | more


@pytest.mark.parametrize("model", OLDER)
def test_every_key_of_the_oldest_file_is_needed(model: type[Record]) -> None:
    """Without one of them, the error names it."""
    for key in OLDER[model]:
        content = {name: value for name, value in OLDER[model].items() if name != key}
        with pytest.raises(model.error, match=rf"^file is damaged \({key} is missing\); "):
            parse(model, json.dumps(content), "file")
