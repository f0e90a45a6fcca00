"""How arguments that several commands take are read."""

from pathlib import Path

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.commands.arguments import place, place_if_given, refuse_url, storage_of_options


def test_a_name_is_a_path_and_a_url_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are absolute from the current folder on."""
    monkeypatch.chdir(tmp_path)
    assert place("runs/1") == str(tmp_path / "runs" / "1")
    assert place("s3://bucket/runs") == "s3://bucket/runs"
    assert (place_if_given(None), place_if_given("runs")) == (None, str(tmp_path / "runs"))


def test_a_folder_to_write_is_of_this_machine() -> None:
    """Otherwise a folder `s3:` would be made here."""
    refuse_url(Path("report"), "--output")
    with pytest.raises(RequestError, match=r"--output: s3:// is not written to; name a folder of this machine"):
        refuse_url(Path("s3://bucket/report"), "--output")


def test_keys_of_storage_are_those_of_a_job_file() -> None:
    """Without any, the defaults."""
    assert storage_of_options(["anonymous=true"]).anonymous
    assert not storage_of_options(None).anonymous
    with pytest.raises(RequestError):
        storage_of_options(["no_such_key=1"])
