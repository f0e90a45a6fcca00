"""Parquet files of images become tars that the product reads."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoothcert.workers.tars.shard_reader import Sample, read_samples
from tests.helpers.house import HOUSE
from tests.helpers.tars import images_field, png

SCRIPT = HOUSE / "scripts" / "pack_parquet.py"


def test_every_row_is_a_sample(tmp_path):
    """Key, label and bytes survive, in order, or shuffled; the last tar may be smaller."""
    images = [png(seed=number) for number in range(7)]
    table = pa.table(
        {
            "key": [f"{number:05d}" for number in range(7)],
            "label": pa.array([number % 3 for number in range(7)], pa.int8()),
            "jpg": images,
        }
    )
    pq.write_table(table, tmp_path / "small.parquet")
    command = [sys.executable, SCRIPT, tmp_path / "small.parquet", tmp_path / "tars", "--images-per-tar", "3"]
    subprocess.run(command, check=True)
    packed = sorted((tmp_path / "tars").iterdir())
    assert [tar.name for tar in packed] == ["small-000.tar", "small-001.tar", "small-002.tar"]
    samples = [sample for tar in packed for sample in read_samples(tar, images_field(), classes=3)]
    assert [sample.image for sample in samples] == images
    assert [(sample.key, sample.label) for sample in samples] == [(f"{n:05d}", n % 3) for n in range(7)]
    subprocess.run([*command, "--shuffle", "0"], check=True)
    shuffled = [sample for tar in packed for sample in read_samples(tar, images_field(), classes=3)]
    assert [sample.key for sample in shuffled] != [sample.key for sample in samples]
    contents = [sorted((sample.key, sample.label, sample.image) for sample in each) for each in (samples, shuffled)]
    assert contents[0] == contents[1]


def pack(folder: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, SCRIPT, *map(str, arguments), folder / "tars"]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def packed(folder: Path) -> dict[str, list[Sample]]:
    return {
        tar.name: list(read_samples(tar, images_field(), classes=100)) for tar in sorted((folder / "tars").iterdir())
    }


def hub_images(count: int, start: int = 0) -> pa.Array:
    """As `datasets` writes an Image feature."""
    return pa.array(
        [{"bytes": png(seed=n), "path": f"{n}.png"} for n in range(start, start + count)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )


@pytest.mark.parametrize(
    ("image", "label"), [("image", "label"), ("img", "label"), ("img", "fine_label"), ("image", "labels")]
)
def test_the_hub_s_form(tmp_path, image, label):
    """A struct of bytes and path, under the usual names; a key is the number of its row, PNGs are called so."""
    table = pa.table({image: hub_images(5), "coarse_label": [0] * 5, "caption": ["x"] * 5, label: [4, 3, 2, 1, 0]})
    pq.write_table(table, tmp_path / "test-00000-of-00001.parquet")
    done = pack(tmp_path, tmp_path / "test-00000-of-00001.parquet")
    assert f"5 images of {image}, labels of {label}: 1 tars in" in done.stdout, done.stderr
    ((name, samples),) = packed(tmp_path).items()
    assert name == "test-00000-of-00001-000.tar"
    assert [(sample.key, sample.label) for sample in samples] == [(f"{n:08d}", 4 - n) for n in range(5)]
    assert [sample.image for sample in samples] == [png(seed=n) for n in range(5)]
    with tarfile.open(tmp_path / "tars" / name) as tar:
        assert tar.getnames()[:2] == ["00000000.png", "00000000.cls"]


def test_several_files_and_a_folder(tmp_path):
    """Rows are numbered through, tars are filled across files; files of two splits are not mixed unasked."""
    folder = tmp_path / "data"
    folder.mkdir()
    for part, start in enumerate((0, 4)):
        table = pa.table({"image": hub_images(4, start), "label": list(range(start, start + 4))})
        pq.write_table(table, folder / f"train-0000{part}-of-00002.parquet")
    expected = [(f"{n:08d}", n) for n in range(8)]
    for given in ([folder], sorted(folder.iterdir())):
        for shuffle in ([], ["--shuffle", 0]):
            assert pack(tmp_path, *given, "--images-per-tar", 3, *shuffle).returncode == 0
            tars = packed(tmp_path)
            assert {name: len(samples) for name, samples in tars.items()} == {
                "train-000.tar": 3,
                "train-001.tar": 3,
                "train-002.tar": 2,
            }
            pairs = [(sample.key, sample.label) for samples in tars.values() for sample in samples]
            assert (pairs == expected) is not bool(shuffle)
            assert sorted(pairs) == expected
    pq.write_table(table, folder / "test-00000-of-00001.parquet")
    done = pack(tmp_path, folder)
    assert done.returncode == 2
    assert "files of several splits: test, train; name those of one" in done.stderr


def test_labels_that_are_not_there(tmp_path):
    """Null and -1 are no labels; without a column of labels the images alone are packed on demand."""
    pq.write_table(pa.table({"image": hub_images(3), "label": [1, -1, None]}), tmp_path / "some.parquet")
    assert "labels of label, 2 of them without label" in pack(tmp_path, tmp_path / "some.parquet").stdout
    ((_, samples),) = packed(tmp_path).items()
    assert [sample.label for sample in samples] == [1, None, None]
    pq.write_table(pa.table({"picture": [png()]}), tmp_path / "some.parquet")
    assert pack(tmp_path, tmp_path / "some.parquet", "--image", "picture", "--no-labels").returncode == 0


@pytest.mark.parametrize(
    ("columns", "options", "says"),
    [
        ({"image": hub_images(1), "name": ["cat"]}, [], "class numbers; name one with --label, or give --no-labels"),
        ({"image": hub_images(1), "label": ["cat"]}, [], "label (string)"),
        ({"image": ["a.png"], "label": [0]}, [], "bytes of image files; name one with --image"),
        ({"image": [[1, 2, 3]], "label": [0]}, [], "image (list<element: int64>)"),
        ({"image": hub_images(1), "label": [0]}, ["--label", "lable"], "no column lable holds class numbers"),
        ({"image": pa.array([None], hub_images(1).type), "label": [0]}, [], "row 0 has no bytes in image"),
        ({"image": hub_images(0), "label": pa.array([], pa.int64())}, [], "has no rows"),
        (None, [], "cannot be read as Parquet"),
    ],
)
def test_other_forms_are_one_line(tmp_path, columns, options, says):
    """What cannot be packed is told in a line with the columns that are there, and leaves no tar."""
    if columns is None:
        (tmp_path / "x.parquet").write_bytes(b"no Parquet at all")
    else:
        pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    done = pack(tmp_path, tmp_path / "x.parquet", *options)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
    assert not list(tmp_path.glob("tars/*"))


def test_room_is_asked_for_on_a_full_disk_alone(tmp_path):
    """In the place of a folder may be a file; what was begun on a full disk is removed."""
    pq.write_table(pa.table({"image": hub_images(1), "label": [0]}), tmp_path / "x.parquet")
    tars = tmp_path / "tars"
    tars.touch()
    assert pack(tmp_path, tmp_path / "x.parquet").stderr.endswith("written: File exists; name another folder\n")
    tars.unlink()
    tars.mkdir()
    (tars / "x-000.part").symlink_to("/dev/full")
    done = pack(tmp_path, tmp_path / "x.parquet")
    assert f"No space left on device; make room in {tars}, or name another folder" in done.stderr
    assert list(tars.iterdir()) == []


def test_a_folder_without_parquet_says_what_it_holds(tmp_path):
    """The folder exists, and may be another than the one meant."""
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "a.csv").touch()
    assert "data holds no *.parquet but a.csv, train/; name files" in pack(tmp_path, tmp_path / "data").stderr
    assert "data/train holds no *.parquet but nothing; name" in pack(tmp_path, tmp_path / "data" / "train").stderr


@pytest.mark.parametrize("given", ["nowhere.parquet", "."])
def test_files_that_are_not_there(tmp_path, given):
    """A missing file, and a folder without one."""
    done = pack(tmp_path, tmp_path / given)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert str(tmp_path) in done.stderr
