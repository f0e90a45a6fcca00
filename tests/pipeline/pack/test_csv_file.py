"""A CSV file names images and labels, in the forms in which people write such files."""

from pathlib import Path

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.pack.csv_file import list_csv
from tests.helpers.photos import photo


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    for number in range(3):
        (tmp_path / "a" / f"{number}.jpg").write_bytes(photo(number))
    return tmp_path


def csv_of(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    (folder / "list.csv").write_text(text, encoding=encoding)
    return folder / "list.csv"


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na/0.jpg,cat\na/1.jpg,dog\n",
        "\ufeffpath,label\r\na/0.jpg,cat\r\n\r\na/1.jpg,dog\r\n",  # as spreadsheets of Windows save it
        "label;Path\ncat;a/0.jpg\ndog;a/1.jpg\n",
        "label\tfile_name\tnote\ncat\ta/0.jpg\tx, y\ndog\ta/1.jpg\t\n",
        'path,label\n"a/0.jpg", cat\n"./a/1.jpg","dog"\n',
    ],
)
def test_forms(folder: Path, text: str) -> None:
    """Commas, semicolons, tabs, quotes, a BOM, blank lines, columns in any order."""
    listing = list_csv(csv_of(folder, text), image=None, label=None, labelled=True)
    assert list(listing.keys) == ["a/0", "a/1"]
    assert list(listing.labels) == ["cat", "dog"]
    assert listing.read(1) == photo(1)
    assert not listing.left_out


def test_columns_can_be_named(folder: Path) -> None:
    """And labels left away."""
    file = csv_of(folder, "where,what\na/0.jpg,7\n")
    assert list_csv(file, image="where", label="what", labelled=True).labels == ["7"]
    assert list_csv(file, image="where", label=None, labelled=False).labels == [None]


def test_what_is_left_out_has_a_reason(folder: Path) -> None:
    """The line of the file, and the path."""
    (folder / "empty.jpg").touch()
    absolute = folder / "a" / "2.jpg"
    text = f"path,label\na/0.jpg,1\na/9.jpg,1\nempty.jpg,1\na/0.jpg,2\n{absolute},\n"
    listing = list_csv(csv_of(folder, text), image=None, label=None, labelled=True)
    assert [(one.name, str(one.reason), one.detail) for one in listing.left_out] == [
        ("list.csv line 3", "leads to no file", "a/9.jpg"),
        ("list.csv line 4", "empty", "empty.jpg"),
        ("list.csv line 5", "same key as another image", "a/0.jpg"),
    ]
    assert list(listing.keys) == ["a/0_jpg", "a/2"]  # 0.jpg came twice
    assert list(listing.labels) == ["1", None]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a/0.jpg,cat\n", "its header has no column path or file_name"),
        ("path,label\n", "names no image that is there but no line below its header"),
        (
            "path,label\nb.jpg,1\n",
            "names no image that is there but b.jpg (leads to no file); relative paths start from",
        ),
        ("path,name\na/0.jpg,1\n", "has no column label or labels or class"),
        ('path,label\n"a/0.jpg,1\n', "cannot be read as CSV"),
    ],
)
def test_a_file_that_is_no_source(folder: Path, text: str, says: str) -> None:
    """One line."""
    with pytest.raises(RequestError) as error:
        list_csv(csv_of(folder, text), image=None, label=None, labelled=True)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_in_another_encoding(folder: Path) -> None:
    """The remedy is to write it as UTF-8."""
    with pytest.raises(RequestError, match="write it as UTF-8"):
        list_csv(csv_of(folder, "path,label\na/0.jpg,Kätzchen\n", "latin-1"), image=None, label=None, labelled=True)
