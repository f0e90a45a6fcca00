"""A file that an option of a command names: new unless it may be replaced, whole, and never in place of evidence."""

from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.runs.layout import RUN_JSON, SUCCESS
from smoothcert.workers.storage.output_file import EVIDENCE, OutputFile, refuse_inside_a_run
from tests.helpers.finished_runs import file_of, upload


def write(place: object, content: bytes, *, overwrite: bool = False) -> None:
    with OutputFile(str(place), "--out", overwrite).opened() as file:
        file.write(content)


def test_a_file_of_an_option_is_new(tmp_path: Path) -> None:
    """The error names the option; a file that exists stays as it is, unless it may be replaced."""
    path = tmp_path / "a"
    with OutputFile(str(path), "--out").opened() as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    for place, says in (
        (path, "is there already; name a new file, or add --overwrite$"),
        (tmp_path / "nowhere" / "a", r"cannot be written \(No such file or directory\)"),
        ("x" * 300, r"cannot be written \(File name too long\)"),
        ("gs://bucket/a", "gs:// is not written to; name a file of this machine, or s3://BUCKET/KEY"),
    ):
        with pytest.raises(RequestError, match=says):
            write(place, b"other")
    assert path.read_bytes() == b"whole"
    write(path, b"other", overwrite=True)
    assert path.read_bytes() == b"other"


def test_a_file_of_this_machine_that_appears_meanwhile_stays(tmp_path: Path) -> None:
    """Another process may have written it; two that write at once never mix."""
    with (
        pytest.raises(RequestError, match="is there already"),
        OutputFile(str(tmp_path / "a"), "--out").opened() as one,
    ):
        one.write(b"fir")
        write(tmp_path / "a", b"second")
        one.write(b"st")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"second"]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(ValueError, match="broken"), OutputFile(str(tmp_path / "a"), "--out", True).opened() as file:
        file.write(b"par")
        raise ValueError("broken")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_a_place_is_refused_before_long_work(tmp_path: Path) -> None:
    """For the reasons for which writing is refused; nothing is written."""
    (tmp_path / "a").write_text("old")
    for place in (tmp_path / "a", tmp_path / "nowhere" / "a", Path(), tmp_path):
        for overwrite in (False, True) if Path(place).is_dir() else (False,):
            output = OutputFile(str(place), "--out", overwrite)
            with pytest.raises(RequestError) as later, output.opened():
                pass
            with pytest.raises(RequestError) as before:
                output.check()
            assert str(before.value) == str(later.value)
    OutputFile(str(tmp_path / "b"), "--out").check()
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def damaged(run: Path) -> None:
    (run / RUN_JSON).unlink()


def untouched(run: Path) -> None:
    pass


def linked(run: Path) -> None:
    (run.parent / "link").symlink_to(run / "votes")


@pytest.mark.parametrize("change", [untouched, damaged, linked])
def test_no_file_of_a_run_is_replaced(run: Path, change: Callable[[Path], None]) -> None:
    """Whatever the user says, and by whatever path; also if run.json is lost."""
    assert set(EVIDENCE) == {RUN_JSON, SUCCESS}
    change(run)
    files = [path for path in run.rglob("*") if path.is_file()]
    files += [run / "votes" / ".." / SUCCESS, *(run.parent / "link").glob("*")]
    before = {path: path.read_bytes() for path in files}
    assert len(files) > 3
    for path in files:
        with pytest.raises(RequestError, match=r"lies in the run .*, which no output may change"):
            write(path, b"x", overwrite=True)
    for name in ("_SUCCESS.new", "votes/99.parquet"):  # nor is one added
        with pytest.raises(RequestError, match="which no output may change"):
            write(run / name, b"x")
    assert before == {path: path.read_bytes() for path in files}
    write(run.parent / "beside", b"x", overwrite=True)


def test_no_folder_in_a_run_is_for_files_of_a_user(run: Path) -> None:
    """Whether it exists or not; beside the run it is."""
    for folder in (run, run / "votes", run / "report", run / "votes" / ".." / "report"):
        with pytest.raises(RequestError, match="which no output may change"):
            refuse_inside_a_run(folder, "--output")
    refuse_inside_a_run(run.parent / "report", "--output")


def test_a_file_in_a_bucket_is_new(bucket: str, tmp_path: Path) -> None:
    """It appears whole at the end, and only --overwrite replaces it."""
    client, place = boto3.client("s3"), f"s3://{bucket}/some/a"
    with OutputFile(place, "--out").opened() as file:
        file.write(b"who")
        assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
        file.write(b"le")
    with pytest.raises(RequestError, match=r"--out s3://.*/some/a: is there already; .* add --overwrite"):
        write(place, b"other")
    with pytest.raises(ValueError, match="broken"), OutputFile(place, "--out", True).opened():
        raise ValueError("broken")
    assert client.get_object(Bucket=bucket, Key="some/a")["Body"].read() == b"whole"
    write(place, b"other", overwrite=True)
    assert client.get_object(Bucket=bucket, Key="some/a")["Body"].read() == b"other"
    for folder in (f"s3://{bucket}/", f"s3://{bucket}"):
        with pytest.raises(RequestError, match="names no file"):
            write(folder, b"x")


def test_a_file_that_appears_meanwhile_stays(bucket: str) -> None:
    """The PUT is conditional. If it holds what we write, it may be ours, whose answer was lost."""
    for late, fails in ((b"theirs", True), (b"ours", False)):
        place = f"s3://{bucket}/{late.decode()}"
        output = OutputFile(place, "--out").opened()
        file = output.__enter__()
        file.write(b"ours")
        boto3.client("s3").put_object(Bucket=bucket, Key=late.decode(), Body=late)
        if fails:
            with pytest.raises(RequestError, match="is there already"):
                output.__exit__(None, None, None)
        else:
            output.__exit__(None, None, None)


def test_no_file_of_a_run_in_a_bucket_is_replaced(run: Path, bucket: str, tmp_path: Path) -> None:
    there = upload(run, bucket)
    for name in (RUN_JSON, SUCCESS, f"votes/{file_of(run).name}"):
        with pytest.raises(RequestError, match=f"lies in the run {there}, which no output may change"):
            write(f"{there}/{name}", b"x", overwrite=True)
    client = boto3.client("s3")
    client.download_file(bucket, there.split("/", 3)[3] + f"/{SUCCESS}", str(tmp_path / SUCCESS))
    assert (tmp_path / SUCCESS).read_bytes() == (run / SUCCESS).read_bytes()
