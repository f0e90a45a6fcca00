"""From a job to a run: where its files are called what they like, what is told of files that are not read."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import moto
import pytest
from typer.testing import CliRunner, Result

from smoothcert.manifests.job import load_job
from smoothcert.pipeline.certify.driver import certify_all
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.pipeline.cli import app
from smoothcert.workers.storage import store as storage
from tests.helpers import jobs
from tests.helpers.finished_runs import finish


def smoothcert(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.mark.parametrize("name", ["with [bold]brackets", "{a,b}", "what?", "star*", "~", ":fire:", "% #"])
def test_a_folder_may_be_called_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Its job, its tars by any pattern, its run and what is asked of it: names are printed as they are."""
    folder = tmp_path / name
    folder.mkdir()
    run = finish(folder)
    monkeypatch.chdir(tmp_path)
    here = f"./{name}"
    for spec in ("tars", "tars/*.tar", "tars/{00..01}.tar", "tars/0[01].tar"):
        plan = make_plan(load_job(folder / "job.yaml", [f"images.shards={here}/{spec}"]))
        assert (plan.run.url, plan.todo, plan.notices) == (str(run), (), ())
    assert str(run) in smoothcert("plan", f"{here}/job.yaml").stdout
    certified = smoothcert("certify", f"{here}/job.yaml")
    assert str(run) in certified.stdout and "nothing to do" in certified.stdout
    assert run.name in smoothcert("runs", f"{here}/runs").stdout
    asked = f"{here}/runs/{run.name}"
    assert str(run) in smoothcert("status", asked).stdout
    assert smoothcert("verify", asked, "--replay", 2).stdout.endswith("all right\n")
    assert smoothcert("repair", asked).stdout == "nothing to repair\n"
    assert smoothcert("query", asked, "--parquet", f"{here}/{name}.parquet").exit_code == 0
    assert (folder / f"{name}.parquet").exists()


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    """A job's name, and that of a shard, are neither markup nor emoji."""
    jobs.write_shards(tmp_path, 1)
    name = "[bold]x[/bold] :fire: [/]"
    for command in ("plan", "certify"):
        shown = smoothcert(
            command, jobs.write_job(tmp_path, name=name), "--set", "images.shards=nowhere :fire: [/]/x.tar"
        )
        assert "nowhere :fire: [/]/x.tar does not exist" in shown.stderr
    assert smoothcert("plan", tmp_path / "job.yaml").stdout.startswith(name)


@pytest.fixture
def finished_job(tmp_path: Path) -> Path:
    """A job that is done, of two tars."""
    finish(tmp_path)
    return tmp_path / "job.yaml"


def test_what_is_not_read_is_told_by_plan_and_certify(finished_job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, also of a finished run; the run is the same."""
    (finished_job.parent / "tars" / "02.tar.part").write_bytes(b"half")
    told = f"notice: images.shards: {finished_job.parent}/tars/ also holds what is not read: 02.tar.part;"
    for command in ("plan", "certify"):
        shown = smoothcert(command, finished_job)
        assert shown.exit_code == 0
        assert shown.stdout.count(told) == 1
    capsys.readouterr()
    assert certify_all(load_job(finished_job), json_to=sys.stdout) == 0
    with_json = capsys.readouterr()
    assert told in with_json.err
    assert json.loads(with_json.out)["complete"]


def test_half_a_folder_is_refused(finished_job: Path) -> None:
    """Beside tars that are read, one that cannot be read in place: exit code 2, and nothing is made."""
    tars = finished_job.parent / "tars"
    (tars / "01.tar").rename(tars / "01.tar.gz")
    for command in ("plan", "certify"):
        shown = smoothcert(command, finished_job)
        assert shown.exit_code == 2
        assert "01.tar.gz (unpack it with `gunzip`)" in shown.stderr
    assert len(list((finished_job.parent / "runs").iterdir())) == 1


EVERYONE = """{"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*",
               "Resource": ["arn:aws:s3:::public", "arn:aws:s3:::public/*"]}]}"""


@pytest.fixture
def public_run(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A finished run in a bucket, and no credentials on this machine."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    storage._s3.cache_clear()
    with moto.mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="public")
        client.put_bucket_policy(Bucket="public", Policy=EVERYONE)
        for path in finished.rglob("*"):
            if path.is_file():
                client.upload_file(str(path), "public", f"runs/{finished.name}/{path.relative_to(finished)}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield f"s3://public/runs/{finished.name}"


@pytest.mark.parametrize("command", ["status", "verify", "query", "repair", "runs"])
def test_a_public_run_is_read_without_credentials(public_run: str, finished: Path, command: str) -> None:
    """The commands that know no job file take `storage` as an option; the error without it names the way."""
    url = public_run.rpartition("/")[0] if command == "runs" else public_run
    refused = smoothcert(command, url)
    assert refused.exit_code in (1, 2)
    assert "storage.anonymous: true" in refused.stderr
    assert smoothcert(command, url, "--storage", "anonymous=true").exit_code == 0


def test_a_job_over_public_tars(tmp_path: Path, public_run: str) -> None:
    """Tars and checkpoint of a public bucket, output in a folder: planned without credentials."""
    jobs.write_shards(tmp_path, 2)
    jobs.write_job(tmp_path)
    client = boto3.client("s3", aws_access_key_id="any", aws_secret_access_key="any")
    for tar in sorted((tmp_path / "tars").iterdir()):
        client.upload_file(str(tar), "public", f"data/{tar.name}")
    client.upload_file(str(tmp_path / "weights.pt"), "public", "weights.pt")
    here = make_plan(load_job(tmp_path / "job.yaml"))
    urls = ["images.shards=s3://public/data/", "model.checkpoint=s3://public/weights.pt"]
    there = make_plan(load_job(tmp_path / "job.yaml", [*urls, "storage.anonymous=true"]))
    assert there.run.run_id == here.run.run_id


def test_a_copied_run_is_found_by_a_link(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path, with dots and a slash at the end."""
    shutil.copytree(finished, tmp_path / "a" / finished.name)
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    assert smoothcert("status", f"../a/{finished.name}/").exit_code == 0
