"""One set of photos gives the same tars from every kind of source, and however often the packing is killed."""

import csv
import hashlib
import json
import os
import signal
import sys
import warnings
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.index_file import read_index
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.pack.pack import Options, Packed, bytes_of, lines_of, pack
from smoothcert.pipeline.pack.shards import Limits
from smoothcert.workers.tars.shard_reader import read_samples
from tests.helpers.photos import CLASSES, as_csv, as_parquet, in_folders, paths_in
from tests.helpers.tars import images_field


def packed(source: Path, out: Path, **options: object) -> Packed:
    return pack(str(source), out, Options()._replace(**options), lambda *_: None)


def files_in(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir()) if path.is_file()
    }


def tars_in(folder: Path) -> dict[str, str]:
    return {name: sha256 for name, sha256 in files_in(folder).items() if name.endswith(".tar")}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return in_folders(tmp_path_factory.mktemp("all") / "photos", 1000)


def test_a_thousand_photos_from_every_source(photos: Path, tmp_path: Path) -> None:
    """Class folders, a CSV file and Parquet give the same tars, which hold every photo with its class, once."""
    sources = {
        "folders": photos,
        "csv": as_csv(photos, photos.parent / "list.csv"),
        "parquet": as_parquet(photos, photos.parent / "hub"),
    }
    tars = {}
    for kind, source in sources.items():
        index = packed(source, tmp_path / kind, limits=Limits(300, None)).index
        tars[kind] = tars_in(tmp_path / kind)
        assert (index.images, index.classes, index.left_out) == (1000, CLASSES, {})
        assert index.images_of_class == (334, 333, 333)
    # Keys from folders lack the name of the folder, which CSV and Parquet name.
    rows = {
        kind: [
            (sample.key.removeprefix("photos/"), sample.label, sample.image)
            for tar in sorted((tmp_path / kind).glob("*.tar"))
            for sample in read_samples(tar, images_field(), classes=3)
        ]
        for kind in sources
    }
    expected = {
        (path.removesuffix(".jpg"), CLASSES.index(path.partition("/")[0]), (photos / path).read_bytes())
        for path in paths_in(photos)
    }
    assert rows["folders"] == rows["csv"] == rows["parquet"]
    assert len(rows["folders"]) == 1000
    assert set(rows["folders"]) == expected
    assert tars["csv"] == tars["parquet"]
    assert len({label for _, label, _ in rows["folders"][:30]}) == 3  # shuffled


def test_the_seed_decides_the_order(photos: Path, tmp_path: Path) -> None:
    """And the order of the source can be kept."""
    found = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1), ("d", None)):
        packed(photos, tmp_path / name, seed=seed)
        found[name] = tars_in(tmp_path / name)
    assert found["a"] == found["b"]
    assert len({str(found[name]) for name in "acd"}) == 3
    samples = read_samples(tmp_path / "d" / "00000.tar", images_field(), classes=3)
    assert [f"{sample.key}.jpg" for sample in samples] == paths_in(photos)


def killed_after(events: int, source: Path, out: Path) -> bool:
    """Pack in a child process that kills itself at the Nth call of the operating system; whether it got that far."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
        child = os.fork()
    if child == 0:
        left = events

        def count(event: str, _: object) -> None:
            nonlocal left
            left -= event.startswith(("open", "os.", "shutil."))
            if left == 0:
                left -= 1  # os.kill is an event too
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(count)
            packed(source, out, limits=Limits(4, None))
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.mark.parametrize("kind", ["folders", "parquet"])
def test_a_killed_packing_goes_on(tmp_path: Path, kind: str) -> None:
    """SIGKILL at any call of the operating system: the same command gives the same files, and nothing else is left."""
    source = in_folders(tmp_path / "photos", 11)
    (source / "cat" / "broken.jpg").write_bytes(b"no image")
    if kind == "parquet":
        source = as_parquet(source, tmp_path / "hub")
    packed(source, tmp_path / "whole", limits=Limits(4, None))
    expected = files_in(tmp_path / "whole")
    assert len(expected) == 5  # three tars, index, list of what was left out
    events = resumed = 0
    while True:
        events += 3
        out = tmp_path / f"out-{events}"
        if not killed_after(events, source, out):
            break
        resumed += (out / ".packing" / "00000.json").exists()
        assert not (out / "index.json").exists() or tars_in(out) == tars_in(tmp_path / "whole")
        packed(source, out, limits=Limits(4, None))
        assert files_in(out) == expected, events
    assert resumed > 3


def test_a_finished_tar_is_not_written_again(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an interruption the next one follows; a complete folder is left alone."""
    heard = []

    def interrupt(what: str, done: int, total: int) -> None:
        heard.append(done)
        if done == 500 and len(heard) == 500:
            raise KeyboardInterrupt

    options = Options(limits=Limits(200, None))
    with pytest.raises(KeyboardInterrupt):
        pack(str(photos), tmp_path / "out", options, interrupt)
    assert tars_in(tmp_path / "out").keys() == {"00000.tar", "00001.tar"}
    assert not pack(str(photos), tmp_path / "out", options, interrupt).was_complete
    assert heard[500] == 401
    assert pack(str(photos), tmp_path / "out", options, interrupt).was_complete
    assert len(heard) == 500 + 600


def test_the_index_is_one_of_wids(photos: Path, tmp_path: Path) -> None:
    """Names and counts as wids has them; counts, hashes and sizes are the files'."""
    index = packed(photos, tmp_path / "out", limits=Limits(None, 10**6)).index
    for shard in index.shardlist:
        data = (tmp_path / "out" / shard["url"]).read_bytes()
        assert (shard["filesize"], shard["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert len(data) <= 10**6
    path = tmp_path / "out" / "index.json"
    members = read_index(str(path), path.read_bytes(), None).members
    for member in members:
        assert member.images == len(list(read_samples(Path(member.url), images_field(), classes=3)))
    assert [Path(member.url) for member in members] == sorted((tmp_path / "out").glob("*.tar"))
    assert sum(member.images or 0 for member in members) == index.images == 1000


def test_what_was_left_out_is_counted_and_named(tmp_path: Path) -> None:
    """In the index, in left_out.csv, and on the screen; nothing is lost silently."""
    source = in_folders(tmp_path / "photos", 6)
    for name, content in {"a.txt": b"x", "b.jpg": b"", "c.jpg": b"no image at all", "d.bmp": None}.items():
        bitmap = b"BM" + bytes(12) + b"\x28\0\0\0"
        (source / "owl" / name).write_bytes(bitmap if content is None else content)
    found = packed(source, tmp_path / "out")
    assert found.index.left_out == {"empty": 1, "no image by its content": 1, "no image by its name": 1}
    with (tmp_path / "out" / "left_out.csv").open() as file:
        rows = {row["name"]: (row["reason"], row["detail"]) for row in csv.DictReader(file)}
    assert rows == {
        "owl/a.txt": ("no image by its name", ""),
        "owl/b.jpg": ("empty", ""),
        "owl/c.jpg": ("no image by its content", "the file is text ('no image at all')"),
    }
    files = sum(path.is_file() for path in source.rglob("*"))
    assert found.index.images + sum(found.index.left_out.values()) == files
    assert list(lines_of(found, tmp_path / "out")) == [
        f"7 images of 3 classes in 1 tar: {tmp_path}/out",
        "notice: left out: 1 empty, 1 no image by its content, 1 no image by its name; "
        f"{tmp_path}/out/left_out.csv names each",
        "notice: some images are bmp; to certify them, a job needs images.image: [bmp, jpg, png]",
        f"a job reads them with images: {{shards: {tmp_path}/out}}",
    ]


def test_images_without_label(tmp_path: Path) -> None:
    """Some of them, or all."""
    source = in_folders(tmp_path / "photos", 3)
    file = tmp_path / "list.csv"
    file.write_text("path,label\n" + "".join(f"photos/{path},{n or ''}\n" for n, path in enumerate(paths_in(source))))
    lines = list(lines_of(packed(file, tmp_path / "some"), tmp_path / "some"))
    assert lines[:2] == [f"3 images of 2 classes in 1 tar: {tmp_path}/some", "notice: 1 image without label"]
    choice = Options().choice._replace(labelled=False)
    lines = list(lines_of(packed(source, tmp_path / "all", choice=choice), tmp_path / "all"))
    assert lines == [
        f"3 images without labels in 1 tar: {tmp_path}/all",
        f"a job reads them with images: {{shards: {tmp_path}/all, label: null}}",
    ]


def test_a_source_without_images_leaves_no_tar(tmp_path: Path) -> None:
    """All files have an image's name and no image's content."""
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "a.jpg").write_bytes(b"version https://git-lfs")
    with pytest.raises(RequestError, match=r"holds no image that can be packed: cat/a.jpg .* run `git lfs pull`"):
        packed(tmp_path / "photos", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    """A file in its place; a full disk."""
    source = in_folders(tmp_path / "photos", 3)
    (tmp_path / "out").touch()
    with pytest.raises(RequestError, match=r"cannot be written .*; name another folder"):
        packed(source, tmp_path / "out")
    (tmp_path / "full" / ".packing").mkdir(parents=True)
    (tmp_path / "full" / ".packing" / "tar.part").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"full is full .*; make room there, or name another folder"):
        packed(source, tmp_path / "full")


@pytest.mark.parametrize(
    ("text", "size"), [("500M", 5 * 10**8), ("1.5GB", 15 * 10**8), ("2 GiB", 2**31), ("10k", 10**4), ("77", 77)]
)
def test_sizes(text: str, size: int) -> None:
    """As people write them."""
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "0", "M", "1X", "-1M", "1e6"])
def test_other_sizes_are_refused(text: str) -> None:
    """With an example."""
    with pytest.raises(RequestError, match="is no size; write one such as 500M or 2GiB"):
        bytes_of(text)


@pytest.mark.parametrize("names", ["a.tar", "%05d", "%d-%d.tar", "a/%d.tar", "%s.tar", ".%d.tar"])
def test_names_without_a_number_are_refused(tmp_path: Path, names: str) -> None:
    """Every tar needs another name, in the folder, that a job takes for a tar."""
    with pytest.raises(RequestError, match=r"must hold the number of a tar once, such as val-%05d.tar"):
        packed(tmp_path, tmp_path / "out", names=names)


def test_the_command(tmp_path: Path) -> None:
    """Its options reach the tars; --json prints the index."""
    in_folders(tmp_path / "photos", 8)
    (tmp_path / "names.txt").write_text("owl\ndog\ncat\n")
    arguments = ["--shard-images", "3", "--names", "val-%02d.tar", "--classes", str(tmp_path / "names.txt"), "--json"]
    result = CliRunner().invoke(app, ["pack", str(tmp_path / "photos"), str(tmp_path / "out"), *arguments])
    assert result.exit_code == 0, result.stderr
    index = json.loads(result.stdout)
    assert index == json.loads((tmp_path / "out" / "index.json").read_text())
    assert (index["classes"], index["images_of_class"]) == (["owl", "dog", "cat"], [2, 3, 3])
    assert [shard["url"] for shard in index["shardlist"]] == ["val-00.tar", "val-01.tar", "val-02.tar"]
    for more, says in ((["--seed", "1"], "--seed or --in-order"), (["--label", "x", "--no-labels"], "exclude each")):
        result = CliRunner().invoke(app, ["pack", str(tmp_path / "photos"), str(tmp_path / "out"), *arguments, *more])
        assert (result.exit_code, says in result.stderr) == (2, True)


def test_tars_are_not_packed_into_a_bucket(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder named `s3:` would surprise."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["pack", str(photos), "s3://bucket/tars"])
    assert (result.exit_code, "OUT: s3:// is not written to; name a folder of this machine" in result.stderr) == (
        2,
        True,
    )
    assert not list(tmp_path.iterdir())
