"""Other data under the names and sizes of a run is refused."""

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from smoothcert.manifests.errors import RequestError, RunError, ShardError
from smoothcert.manifests.job import load_job
from smoothcert.pipeline.certify.begin import begin
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.workers.runs.votes_table import METADATA_KEY
from tests.helpers import jobs
from tests.helpers.finished_runs import finish
from tests.helpers.tars import tar_of, write_tar


def test_other_counts_under_a_limit_are_changed_data(tmp_path: Path) -> None:
    """Tars of equal names and sizes, of which the first has more images than when the run was begun."""
    (tmp_path / "tars").mkdir()
    for name, images in (("a.tar", 2), ("b.tar", 3)):
        write_tar(tmp_path / "tars", tar_of(jobs.samples(0, images)), name)
    job = jobs.write_job(tmp_path)
    plan = make_plan(load_job(job, ["images.limit=3"]))
    begin(plan)
    assert [task.limit for task in plan.tasks] == [2, 1]
    size = plan.tasks[0].shard.size
    write_tar(tmp_path / "tars", tar_of(jobs.samples(0, 3)), "a.tar")
    assert (tmp_path / "tars" / "a.tar").stat().st_size == size  # a tar is padded to 20 blocks
    with pytest.raises(RequestError, match=r"first 3 images do not lie in the same tars .*; set images\.version"):
        make_plan(load_job(job, ["images.limit=3"]))
    assert json.loads((Path(plan.run.url) / "run.json").read_text())["partial"]


def test_a_tar_that_was_only_touched_is_the_same(tmp_path: Path) -> None:
    """Another fingerprint with the same content: the run is continued."""
    finish(tmp_path)
    os.utime(tmp_path / "tars" / "00.tar", (1, 1))
    assert make_plan(load_job(tmp_path / "job.yaml")).todo == ()


def test_a_tar_with_other_content_is_refused_once_its_votes_are_published(tmp_path: Path) -> None:
    """Before that nothing depends on its old content. A broken copy is no other content."""
    run = finish(tmp_path)
    tar = tmp_path / "tars" / "00.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole.replace(b"0000.png", b"9999.png"))  # its header no longer has the right checksum
    with pytest.raises(ShardError, match=r"^shard 00\.tar: is not a whole plain tar"):
        make_plan(load_job(tmp_path / "job.yaml"))
    tar.write_bytes(whole.replace(b"IHDR", b"IHDr", 1))
    with pytest.raises(RequestError, match=r"tars/00\.tar has other content than when .*; set images\.version"):
        make_plan(load_job(tmp_path / "job.yaml"))
    (run / "votes" / "00000-00.parquet").unlink()
    assert [task.shard.name for task in make_plan(load_job(tmp_path / "job.yaml")).todo] == ["00.tar"]


def test_a_file_without_the_hash_of_its_tar_is_damaged(tmp_path: Path) -> None:
    """It is no sign of other data, so nobody is told to begin another run."""
    run = finish(tmp_path)
    file = run / "votes" / "00000-00.parquet"
    table = pq.read_table(file)
    described = json.loads(table.schema.metadata[METADATA_KEY])
    del described["shard_sha256"]
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(described)}), file)
    os.utime(tmp_path / "tars" / "00.tar", (1, 1))
    with pytest.raises(RunError, match=r"00000-00\.parquet is damaged \(shard_sha256 is missing\)"):
        make_plan(load_job(tmp_path / "job.yaml"))
