"""A file has its name only when it is whole."""

from pathlib import Path

import pytest

from smoothcert.workers.storage.aside import written_aside


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
