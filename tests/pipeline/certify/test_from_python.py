"""A job certified from Python gives its run, or an error in a line."""

import pytest

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.job import load_job
from smoothcert.pipeline.certify.from_python import certify
from tests.helpers import jobs
from tests.helpers.tars import tar_of, write_tar


@pytest.mark.usefixtures("in_process")
def test_the_run_is_the_result(tmp_path, capsys):
    """The table is printed as by the command; a second call finds the run complete."""
    jobs.write_shards(tmp_path)
    job = load_job(jobs.write_job(tmp_path))
    found = certify(job)
    assert (found.complete(), found.job, len(found.images())) == (True, job, 15)
    assert "certified accuracy" in capsys.readouterr().out
    assert certify(tmp_path / "job.yaml").run_id == found.run_id
    assert capsys.readouterr().out.startswith(f"nothing to do: run {found.run_id} is complete")


@pytest.mark.usefixtures("in_process")
def test_what_ends_the_command_with_exit_code_1_is_an_error(tmp_path):
    """In one line: the run, the shards that are missing and why; too many images without a label."""
    jobs.write_shards(tmp_path)
    whole = (tmp_path / "tars" / "01.tar").read_bytes()
    (tmp_path / "tars" / "01.tar").write_bytes(whole[: len(whole) // 3])
    job = load_job(jobs.write_job(tmp_path))
    with pytest.raises(RunError, match=r"^\S+/runs/\w{16}: 1 of 3 shards are missing; [^\n]*01\.tar[^\n]*$"):
        certify(job)
    (tmp_path / "other").mkdir()
    labels = [(f"{number:04d}.cls", b"cat" if number < 3 else b"0") for number in range(12)]
    members = [member for member in jobs.samples(0, 12) if member[0].endswith(".png")]
    (tmp_path / "other" / "tars").mkdir()
    write_tar(tmp_path / "other" / "tars", tar_of(sorted([*members, *labels])), "00.tar")
    with pytest.raises(
        RunError, match=r"^\S+: 3 of 12 images have no usable label, more than max_error_share \(0\.2\)"
    ):
        certify(load_job(jobs.write_job(tmp_path / "other", max_error_share=0.2)))


def test_what_is_no_job_is_refused():
    """In a line."""
    with pytest.raises(RequestError, match=r"^job: expected a Job, or the path of a job file, not dict$"):
        certify({"name": "a"})
