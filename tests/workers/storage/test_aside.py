"""A file has its name only when it is whole."""

from pathlib import Path

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.storage.aside import check_new, new_file, written_aside


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    """Not before, and nothing else remains."""
    path = tmp_path / "a"
    with written_aside(path) as aside:
        aside.write_text("whole")
        assert not path.exists()
    assert [file.read_text() for file in tmp_path.iterdir()] == ["whole"]
    assert path.exists()


@pytest.mark.parametrize("existing", [False, True])
def test_an_error_leaves_what_there_was(tmp_path: Path, existing: bool) -> None:
    """The old file stays as it is, and the part of the new one is removed."""
    path = tmp_path / "a"
    if existing:
        path.write_text("old")
    with pytest.raises(ValueError, match="broken"), written_aside(path) as aside:
        aside.write_text("par")
        raise ValueError("broken")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"] * existing


def test_an_existing_file_is_replaced_only_if_it_may_be(tmp_path: Path) -> None:
    """overwrite=False is an error, even if the file appears while the other is written."""
    path = tmp_path / "a"
    with pytest.raises(FileExistsError), written_aside(path, overwrite=False) as aside:
        aside.write_text("new")
        path.write_text("old")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]
    with written_aside(path) as aside:
        aside.write_text("new")
    assert path.read_text() == "new"


def test_a_folder_that_does_not_exist_is_the_error_of_the_system(tmp_path: Path) -> None:
    """And the clean-up does not hide it."""
    with pytest.raises(FileNotFoundError), written_aside(tmp_path / "nowhere" / "a") as aside:
        aside.write_text("new")


def test_a_file_of_an_option_is_new(tmp_path: Path) -> None:
    """The error names the option; a file that exists stays as it is."""
    path = tmp_path / "a"
    with new_file(path, "--out") as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    with pytest.raises(RequestError, match=r"^--out .*a: is there already; name a new file$"), new_file(path, "--out"):
        pass
    with (
        pytest.raises(RequestError, match=r"^--out .*: cannot be written \(No such file or directory\)"),
        new_file(tmp_path / "nowhere" / "a", "--out"),
    ):
        pass
    with (
        pytest.raises(RequestError, match=r"^--out x+: cannot be written \(File name too long\)"),
        new_file(Path("x" * 300), "--out"),
    ):
        pass
    assert path.read_bytes() == b"whole"


def test_a_path_is_refused_before_long_work(tmp_path: Path) -> None:
    """For the reasons for which new_file refuses it; nothing is written."""
    (tmp_path / "a").write_text("old")
    for path in (tmp_path / "a", tmp_path / "nowhere" / "a", Path()):
        with pytest.raises(RequestError) as later, new_file(path, "--out"):
            pass
        with pytest.raises(RequestError) as before:
            check_new(path, "--out")
        assert str(before.value) == str(later.value)
    check_new(tmp_path / "b", "--out")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
