"""A run whose tars, checkpoint and output lie in S3 is the run of a folder."""

import json
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage, load_job
from smoothcert.pipeline.certify.begin import begin
from smoothcert.pipeline.certify.driver import certify_all
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.pipeline.query.answering import query
from smoothcert.pipeline.verify.check import verify
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import open_run
from smoothcert.workers.storage import store as storage
from smoothcert.workers.storage.store import AnyStore
from tests.helpers import jobs
from tests.helpers.actors_here import actors_here
from tests.helpers.house import HOUSE


@pytest.fixture
def job_in_s3(bucket: str, tmp_path: Path) -> Path:
    """The small job with all its files in the bucket."""
    jobs.write_shards(tmp_path)
    client = boto3.client("s3")
    jobs.write_job(tmp_path)
    for tar in (tmp_path / "tars").iterdir():
        client.upload_file(str(tar), bucket, f"data/{tar.name}")
    client.upload_file(str(tmp_path / "weights.pt"), bucket, "weights.pt")
    return tmp_path / "job.yaml"


def in_s3(job_file: Path, bucket: str, *overrides: str):
    return load_job(job_file, [*_s3_paths(bucket), *overrides])


def _s3_paths(bucket: str) -> list[str]:
    paths = {"images.shards": "data/{00..02}.tar", "model.checkpoint": "weights.pt", "output": "runs"}
    return [f'{key}="s3://{bucket}/{path}"' for key, path in paths.items()]


def values_of(url: str):
    run = open_run(url)
    columns = ["key", "shard", "sha256", "label", "votes", "margins", "max_certified_patch"]
    return [row for file in read_published(run, columns) for row in file.rows.to_pylist()]


def test_a_run_in_s3_is_the_run_of_a_folder(ray_here, job_in_s3, bucket, capsys):
    """Same run id, same rows; the second start does nothing; query and verify read it, too."""
    with actors_here():
        assert certify_all(load_job(job_in_s3), json_to=sys.stdout) == 0
    here = json.loads(capsys.readouterr().out)
    job = in_s3(job_in_s3, bucket)
    # A process of its own: its actors have the environment in which it starts Ray.
    command = [sys.executable, HOUSE / "pipeline" / "certify_all.py", job_in_s3, "--json"]
    options = [part for text in _s3_paths(bucket) for part in ("--set", text)]
    driver = subprocess.run([*command, *options], capture_output=True, text=True, check=True, timeout=200)
    there = json.loads(driver.stdout)
    assert there["path"] == f"s3://{bucket}/runs/{here['run_id']}"
    assert there["run_id"] == here["run_id"]
    assert values_of(there["path"]) == values_of(here["path"])
    assert certify_all(job) == 0
    assert "nothing to do" in capsys.readouterr().out
    run = open_run(there["path"])
    (answer,) = query(run, patches=[1]).results
    assert answer.classes[None].images == 15
    assert verify(there["path"], replay=3).problems == ()


def test_a_limit_counts_images_in_s3(job_in_s3, bucket):
    """The limit of each shard comes from headers of tars that are fetched for it."""
    plan = make_plan(in_s3(job_in_s3, bucket, "images.limit=7"))
    assert [task.limit for task in plan.tasks] == [5, 2]


@pytest.mark.parametrize("shards", [1_500, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])])
def test_planning_costs_a_listing(bucket, tmp_path, shards):
    """One call tells of a thousand tars or published files, and a few more do for all that remains."""
    jobs.write_job(tmp_path)
    client = boto3.client("s3", config=Config(max_pool_connections=16))
    client.upload_file(str(tmp_path / "weights.pt"), bucket, "weights.pt")
    put(client, bucket, [f"data/{number:06d}.tar" for number in range(shards)])
    job = in_s3(tmp_path / "job.yaml", bucket, f'images.shards="s3://{bucket}/data/{{000000..{shards - 1:06d}}}.tar"')
    plan, calls = make_plan(job), []
    assert len(plan.todo) == shards
    begin(plan)
    done = plan.todo[:1_200]
    put(client, bucket, [f"runs/{plan.run.run_id}/{task.file_name}" for task in done])
    storage._s3(Storage())._client.meta.events.register("before-send.s3", lambda request, **_: calls.append(request))
    assert len(make_plan(job).todo) == shards - len(done)
    listings = [call for call in calls if "list-type=2" in call.url]
    of_output = 1  # other runs may have what this one lacks
    assert len(listings) == math.ceil(shards / 1000) + math.ceil(len(done) / 1000) + of_output
    assert len(calls) - len(listings) <= 6, [f"{call.method} {call.url}" for call in calls if call not in listings]


def put(client, bucket: str, keys: list[str]) -> None:
    """Small objects, sixteen at a time."""
    with ThreadPoolExecutor(16) as writers:
        list(writers.map(lambda key: client.put_object(Bucket=bucket, Key=key, Body=b"any"), keys))


def test_a_bucket_that_overwrites_is_refused(job_in_s3, bucket, capsys):
    """A versioned bucket of this server ignores the condition: refused with a remedy, or recorded in run.json."""
    boto3.client("s3").put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    plan = make_plan(in_s3(job_in_s3, bucket))
    for _ in range(2):
        with pytest.raises(RequestError, match=r"could be written twice.*--unsafe-overwrite"):
            begin(plan)
    begin(plan, unsafe_overwrite=True)
    record = json.loads(AnyStore(Storage()).read(f"{plan.run.url}/run.json"))
    assert record["unsafe_overwrite"] is True
