"""A shard's file is published once; whoever comes second accepts it if it is about the same images."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from smoothcert.manifests.errors import ShardError
from smoothcert.manifests.identity import VOTES_VERSION
from smoothcert.manifests.job import load_job
from smoothcert.manifests.shards import Shard
from smoothcert.workers.runs.file_hashes import hashes_of
from smoothcert.workers.runs.publication import Publication, TarFacts
from smoothcert.workers.runs.shard_task import ShardTask
from smoothcert.workers.runs.votes_table import METADATA_KEY, Row
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.tars.tar_headers import LeftOut
from tests.helpers import jobs
from tests.helpers.rows import row_of

TASK = ShardTask(3, Shard("a.tar", "/tars/a.tar", 10240, "etag"), None)
TAR = TarFacts("f" * 64, LeftOut(1, 2, frozenset({"bmp", "cls"})), rotated_images=4)
ENVIRONMENT = {"versions": {"torch": "2.15.0"}, "decoder": "Pillow 13", "device": "cpu x86_64"}
ROWS = [
    row_of(
        key=key,
        shard="a.tar",
        index=index,
        image_offset=512,
        image_bytes=9,
        sha256=hashlib.sha256(key.encode()).digest(),
        status="ok",
        votes=[1, 0],
        margins=[0.5, 0.25],
    )
    for index, key in enumerate(("x", "y"))
]


@pytest.fixture
def publication(tmp_path: Path) -> Publication:
    """Of a run in an empty folder."""
    job = load_job(jobs.write_job(tmp_path))
    return Publication(job, "0123", str(tmp_path / "run"), AnyStore(job.storage), 2, 16, ENVIRONMENT)


def publish(publication: Publication, rows: list[Row] = ROWS) -> bool:
    """Whether the file is ours. Either way the hashes are those of the file that is there."""
    published = publication.publish(TASK, rows, TAR, seconds=1.23456)
    assert published.hashes == hashes_of(file_of(publication).read_bytes())
    return published.ours


def file_of(publication: Publication) -> Path:
    return Path(publication.run_url) / "votes" / "00003-a.parquet"


def test_a_file_says_where_its_rows_come_from(publication):
    """Its keys are those that `verify`, `status` and other tools read."""
    assert publish(publication)
    assert pq.read_table(file_of(publication))["key"].to_pylist() == ["x", "y"]
    metadata = json.loads(pq.read_schema(file_of(publication)).metadata[METADATA_KEY])
    assert len(metadata.pop("columns_sha256")) == 64
    assert metadata == {
        "run_id": "0123",
        "shard": {"name": "a.tar", "size": 10240, "fingerprint": "etag"},
        "shard_sha256": "f" * 64,
        "votes_version": VOTES_VERSION,
        "geometry": {"kind": "column", "size": 4, "stride": 1, "edges": "wrap", "crop": jobs.CROP},
        "images_per_batch": 16,
        "system_members": 1,
        "samples_without_image": 2,
        "suffixes_without_image": ["bmp", "cls"],
        "rotated_images": 4,
        "seconds": 1.235,
        **ENVIRONMENT,
    }


def test_the_first_file_stays(publication):
    """Other votes on the same images are no error: devices differ where margins are tiny."""
    assert publish(publication)
    first = file_of(publication).read_bytes()
    assert not publish(publication, [replace(row, votes=[0, 0]) for row in ROWS])
    assert file_of(publication).read_bytes() == first


@pytest.mark.parametrize(
    "rows",
    [ROWS[:1], ROWS[::-1], [ROWS[0], replace(ROWS[1], sha256=bytes(32))], [ROWS[0], replace(ROWS[1], key="z")]],
    ids=["fewer", "another order", "another image", "another key"],
)
def test_a_file_about_other_images_is_an_error(publication, rows):
    """It names the file, and the first file stays."""
    assert publish(publication)
    first = file_of(publication).read_bytes()
    with pytest.raises(ShardError, match=r"00003-a\.parquet is there already, with other images; move it away"):
        publish(publication, rows)
    assert file_of(publication).read_bytes() == first


def test_a_file_of_another_run_is_an_error(publication):
    """Even if it is about the same images."""
    assert publish(replace(publication, run_id="4567"))
    with pytest.raises(ShardError, match="is there already"):
        publish(publication)
