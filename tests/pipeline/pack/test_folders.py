"""Class folders are read as torchvision reads them, and everything else in them is named with the reason."""

from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.pack.classes import number_classes
from smoothcert.pipeline.pack.folders import list_folders
from tests.helpers.photos import in_folders, photo


def test_the_images_and_classes_of_torchvision(tmp_path: Path) -> None:
    """Nested folders belong to the first; oracle: torchvision.datasets.ImageFolder."""
    root = in_folders(tmp_path / "photos", 7, ("b", "B", "a10", "a9"))
    (root / "b" / "deep" / "er").mkdir(parents=True)
    (root / "b" / "deep" / "er" / "x.png").write_bytes(photo(8, "PNG"))
    listing = list_folders(root, labelled=True)
    classes = number_classes(listing, None)
    expected = ImageFolder(root)
    assert classes.names == tuple(expected.classes)
    found = {(str(root / name), int(number)) for name, number in zip(listing.names, classes.numbers, strict=True)}
    assert found == set(expected.samples)
    assert listing.read(listing.names.index("b/deep/er/x.png")) == photo(8, "PNG")


def test_what_is_left_out_has_a_reason(tmp_path: Path) -> None:
    """A file of each kind."""
    root = in_folders(tmp_path, 3)
    for name in ("cat/.DS_Store", "cat/._0000.jpg", "cat/.hidden.jpg", "cat/notes.txt", "cat/empty.jpg", "stray.jpg"):
        (root / name).write_bytes(b"" if "empty" in name else b"x")
    (root / "cat" / "gone.jpg").symlink_to(root / "nowhere")
    (root / "dog" / "again").symlink_to(root)  # not followed for ever
    listing = list_folders(root, labelled=True)
    assert list(listing.names) == ["cat/0000.jpg", "dog/0001.jpg", "owl/0002.jpg"]
    assert {one.name: str(one.reason) for one in listing.left_out} == {
        "cat/.DS_Store": "added by an operating system",
        "cat/._0000.jpg": "added by an operating system",
        "cat/.hidden.jpg": "hidden",
        "cat/notes.txt": "no image by its name",
        "cat/empty.jpg": "empty",
        "cat/gone.jpg": "leads to no file",
        "stray.jpg": "not in a class folder",
    }


def test_without_labels_images_may_lie_anywhere(tmp_path: Path) -> None:
    """Also directly in the folder."""
    root = in_folders(tmp_path, 2)
    (root / "top.png").write_bytes(photo(9, "PNG"))
    listing = list_folders(root, labelled=False)
    assert list(listing.keys) == ["cat/0000", "dog/0001", "top"]
    assert set(listing.labels) == {None}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([], "holds no file; name a folder of class folders"),
        (["a.jpg"], "lie in no class folders, so they have no labels; sort them into SOURCE/CLASS/"),
        (["cat/notes.txt"], "holds no image but cat/notes.txt (no image by its name)"),
        (["train/cat/a.jpg", "val/cat/b.jpg"], "holds the splits train, val, not classes; name one, such as"),
        (["val/cat/b.jpg"], "holds only the split val; name"),
    ],
)
def test_a_folder_that_is_no_source(tmp_path: Path, files: list[str], says: str) -> None:
    """The line says what to name instead."""
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(RequestError, match=r".*") as error:
        list_folders(tmp_path, labelled=True)
    assert says in str(error.value)


def test_the_fingerprint_follows_the_files(tmp_path: Path) -> None:
    """Another size, another name, or one more image."""
    root = in_folders(tmp_path, 4)
    prints = [list_folders(root, labelled=True).fingerprint]
    assert list_folders(root, labelled=True).fingerprint == prints[0]
    (root / "cat" / "0000.jpg").write_bytes(photo(1))
    prints.append(list_folders(root, labelled=True).fingerprint)
    (root / "cat" / "0000.jpg").rename(root / "dog" / "0000.jpg")
    prints.append(list_folders(root, labelled=True).fingerprint)
    (root / "cat" / "new.jpg").write_bytes(photo(2))
    prints.append(list_folders(root, labelled=True).fingerprint)
    assert len(set(prints)) == 4


def test_the_order_is_that_of_the_paths(tmp_path: Path) -> None:
    """As `sorted` gives it: also where a folder's name begins another name."""
    for name in ("a/x.jpg", "a-b/x.jpg", "a.jpg/x.jpg", "ab/x.jpg", "a/b/x.jpg", "a/b-c.jpg", "a/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(photo(0))
    names = list(list_folders(tmp_path, labelled=True).names)
    assert len(names) == 7
    assert names == sorted(names)
