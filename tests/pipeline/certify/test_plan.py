"""From a job to a run: its id and its record, any name of a folder, and notices of files that are not read."""

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

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import load_job
from smoothcert.pipeline.certify.driver import certify_all
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.pipeline.cli import app
from smoothcert.workers.storage import store as storage
from tests.helpers import jobs
from tests.helpers.finished_runs import finish
from tests.helpers.house import HOUSE
from tests.helpers.tars import tar_of, write_tar


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
    assert "all right. Replayed 2 of " in smoothcert("verify", asked, "--replay", 2).stdout
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


def test_a_run_under_the_name_of_another_is_refused(run: Path, tmp_path: Path) -> None:
    """Its votes would be taken for those of the job that has the name."""
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars", tar_of(jobs.samples(0, 2)), "00.tar")
    job = load_job(jobs.write_job(tmp_path))
    shutil.copytree(run, make_plan(job).run.url)
    with pytest.raises(RequestError, match=f"its run.json is that of run {run.name}"):
        make_plan(job)


IDS = {"71743f6fc58b1cf0": [], "bec29a891aa09766": ["images.limit=3", "clean=false"]}
IDS["fa083b94330d0f26"] = ["ablation.kind=block", "preprocess.resize=32"]


@pytest.mark.parametrize("run_id", IDS)
def test_run_ids_stay_as_they_are(tmp_path: Path, run_id: str) -> None:
    """The id that an earlier version gave the same job: votes of months are found again."""
    jobs.write_shards(tmp_path, 2)
    checkpoint = HOUSE / "manifests" / "examples" / "cifar10_vit_p4_column4.safetensors"
    job = load_job(jobs.write_job(tmp_path), [f"model.checkpoint={checkpoint}", *IDS[run_id]])
    assert make_plan(job).run.run_id == run_id


def test_a_plan_holds_what_is_to_do(tmp_path: Path) -> None:
    """All shards at first, the largest first; none of those whose file is published."""
    (tmp_path / "tars").mkdir()
    for name, images in (("a.tar", 1), ("b.tar", 30)):
        write_tar(tmp_path / "tars", tar_of(jobs.samples(0, images)), name)
    job = load_job(jobs.write_job(tmp_path))
    plan = make_plan(job)
    assert [task.shard.name for task in plan.tasks] == ["a.tar", "b.tar"]
    assert [task.shard.name for task in plan.todo] == ["b.tar", "a.tar"]
    plan.run.store.publish(plan.run.url, plan.tasks[1].file_name, b"any")
    assert [task.shard.name for task in make_plan(job).todo] == ["a.tar"]


def test_a_plan_says_what_it_is_made_from(tmp_path: Path) -> None:
    """run.json holds job, checkpoint, shards, limits and versions; a limit that is exceeded makes the run partial."""
    jobs.write_shards(tmp_path, 2)
    job = load_job(jobs.write_job(tmp_path), ["images.limit=7"])
    plan = make_plan(job)
    record = plan.run.record
    assert (record.run_id, record.name, record.partial) == (plan.run.run_id, "small", True)
    assert record.job == job.model_dump(mode="json")
    assert (record.checkpoint.url, record.checkpoint.sha256) == (job.model.checkpoint, plan.checkpoint_sha256)
    assert [(shard.name, shard.limit) for shard in record.shards] == [("00.tar", 5), ("01.tar", 2)]
    assert {"python", "torch", "ray"} <= record.versions.keys()
    assert plan.run.job == job
