"""What a few samples show of labels, sizes and suffixes."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage
from smoothcert.pipeline.init.images import Labels, labels_of, look_at
from smoothcert.workers.storage.store import AnyStore
from tests.helpers.photos import in_folders
from tests.helpers.tars import png, tar_of, write_tar

STORE = AnyStore(Storage())


def _labels(folder: Path, member: str, contents: Sequence[str], classes: int = 10, names: Sequence[str] = ()) -> Labels:
    members = [
        part
        for number, content in enumerate(contents)
        for part in ((f"{number}.png", png(seed=number)), (f"{number}.{member}", content.encode()))
    ]
    write_tar(folder, tar_of(members), "a.tar")
    return labels_of(look_at(str(folder), STORE), classes, names)


@pytest.mark.parametrize(
    ("numbers", "keys"),
    [
        (range(10), {"label": "cls"}),
        (range(1, 11), {"label": "cls", "first_label": 1}),
        ([3] * 20, {"label": "cls"}),
    ],
)
def test_numbers_count_from_0_or_from_1(numbers: Sequence[int], keys: dict[str, object], tmp_path: Path) -> None:
    """From 1 only if the highest number would be no class otherwise."""
    labels = _labels(tmp_path, "cls", [f"{number}\n" for number in numbers])
    assert (labels.keys, labels.notice) == (keys, None)


def test_a_0_that_does_not_occur_is_worth_a_look(tmp_path: Path) -> None:
    """If the labels count from 1, every one of them would be wrong."""
    labels = _labels(tmp_path, "cls", [str(number) for number in range(1, 10)])
    assert labels.keys == {"label": "cls"}
    assert "0 does not occur among 9 labels; if yours count from 1, set images.first_label: 1" in str(labels.notice)


@pytest.mark.parametrize("numbers", [range(11), range(5, 100)])
def test_numbers_of_other_classes_give_a_notice(numbers: Sequence[int], tmp_path: Path) -> None:
    """They are kept: the user decides."""
    labels = _labels(tmp_path, "cls", [str(number) for number in numbers])
    assert labels.keys == {"label": "cls"}
    assert f"labels go up to {max(numbers)}, but the network has 10 classes (0 to 9)" in str(labels.notice)


@pytest.mark.parametrize(
    ("member", "write", "label"),
    [
        ("cls", str, "cls"),
        ("CLS", str, "cls"),
        ("txt", str, "txt"),
        ("cls.txt", str, "cls.txt"),
        ("json", lambda number: json.dumps({"caption": "a cat", "label": number}), "json:label"),
        ("json", lambda number: json.dumps({"category_id": number}), "json:category_id"),
    ],
)
def test_labels_are_found_where_they_are(member: str, write: Callable[[int], str], label: str, tmp_path: Path) -> None:
    """In a member of text, or in a field of JSON."""
    assert _labels(tmp_path, member, [write(number) for number in range(10)]).keys == {"label": label}


def test_names_are_those_of_the_network_or_of_imagenet(tmp_path: Path) -> None:
    """Other names are not used, and a notice says how to name them."""
    names = ("ant", "bee", "cat")
    assert _labels(tmp_path, "cls", ["cat", "ant"] * 5, 3, names).keys == {"label": "cls", "label_names": [*names]}
    of_imagenet = _labels(tmp_path, "txt", ["n01440764", "n02100735"], 1000)
    assert of_imagenet.keys == {"label": "txt", "label_names": "imagenet-1k"}
    unknown = _labels(tmp_path, "cls", ["cat", "ant"] * 5, 3, ("ant", "bee", "dog"))
    assert unknown.keys == {"label": None}
    assert "images.label: cls and images.label_names: FILE" in str(unknown.notice)


def test_images_without_labels(tmp_path: Path) -> None:
    """The comment names what lies beside them instead."""
    labels = _labels(tmp_path, "npy", ["\x00"] * 3)
    assert (labels.keys, labels.notice) == ({"label": None}, None)
    assert "beside them lie .npy" in labels.comment


def test_an_index_with_another_order_of_classes_gives_a_notice(tmp_path: Path) -> None:
    """The same names in another order would give wrong figures without an error."""
    write_tar(tmp_path, tar_of([("a.png", png()), ("a.cls", b"1")]), "a.tar")
    index = {"packed": {}, "classes": ["bee", "ant"], "shardlist": [{"url": "a.tar", "nsamples": 1}]}
    (tmp_path / "index.json").write_text(json.dumps(index | {"images_of_class": [0, 1]}))
    looked = look_at(str(tmp_path), STORE)
    assert labels_of(looked, 2, ("bee", "ant")).notice is None
    assert "pack the images again with --classes" in str(labels_of(looked, 2, ("ant", "bee")).notice)
    assert "has 2 classes, the network 10: labels are numbers of the index" in str(labels_of(looked, 10, ()).notice)


@pytest.mark.parametrize(("sizes", "side"), [([(8, 8)] * 3, 8), ([(8, 8), (8, 9)], None), ([(9, 8)], None)])
def test_the_side_of_equal_squares(sizes: Sequence[tuple[int, int]], side: int | None, tmp_path: Path) -> None:
    """Damaged images do not count."""
    members = [(f"{number}.png", png(*size)) for number, size in enumerate(sizes)]
    write_tar(tmp_path, tar_of([*members, ("damaged.png", b"\x89PNG")]), "a.tar")
    looked = look_at(str(tmp_path), STORE)
    assert (looked.side, looked.suffixes) == (side, ("png",))


def test_only_the_beginning_of_a_large_tar_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample that is cut there does not count: its image would seem damaged and its label missing."""
    members = [part for number in range(20) for part in ((f"{number}.png", png(64, 64)), (f"{number}.cls", b"1"))]
    write_tar(tmp_path, tar_of(members), "a.tar")
    whole = {f"{len(look_at(str(tmp_path), STORE).samples)}"}
    assert whole == {"20"}
    for size in range(30_000, 60_000, 512):
        monkeypatch.setattr("smoothcert.pipeline.init.images._BYTES_OF_A_TAR", size)
        looked = look_at(str(tmp_path), STORE)
        assert 1 <= len(looked.samples) < 20
        assert all(sample == {"png": png(64, 64), "cls": b"1"} for sample in looked.samples)


def test_images_that_are_not_in_tars_are_to_be_packed(tmp_path: Path) -> None:
    """Class folders, Parquet and CSV."""
    photos = in_folders(tmp_path / "photos", 3)
    (tmp_path / "photos.csv").write_text("path,label\n")
    for source in (photos, tmp_path / "photos.csv"):
        with pytest.raises(RequestError, match=f"`smoothcert pack {source} OUT` makes them"):
            look_at(str(source), STORE)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"no tar", "is no tar"), (tar_of([("a.txt", b"1")]), "begins with no image (it holds txt)")],
)
def test_a_file_without_images_is_one_line(content: bytes, says: str, tmp_path: Path) -> None:
    """It says which file."""
    write_tar(tmp_path, content, "a.tar")
    with pytest.raises(RequestError) as error:
        look_at(str(tmp_path), STORE)
    assert says in str(error.value)
    assert "a.tar" in str(error.value)
