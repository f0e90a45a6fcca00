"""A folder takes one packing: not a second one at once, not another one, and none over tars of something else."""

import fcntl
from pathlib import Path

import pytest

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.pipeline.pack.output import Output
from smoothcert.pipeline.pack.records import PackIndex, PackRequest, ShardEntry

REQUEST = PackRequest(
    source="photos", images=9, fingerprint="ab", seed=0, shard_images=3, shard_bytes=None, names="%05d.tar",
    classes_sha256="cd",
)  # fmt: skip


def entry(number: int, **changes: object) -> ShardEntry:
    found = {
        "name": f"{number:05d}.tar", "size": 4, "sha256": "ef", "images": 3, "position": 3 * number + 3,
        "of_class": {"0": 3}, "suffixes": ("jpg",),
    }  # fmt: skip
    return ShardEntry.model_validate(found | changes)


def index(*names: str) -> PackIndex:
    shards = tuple({"url": name, "nsamples": 3} for name in names)
    return PackIndex(
        packed=REQUEST, images=3, unlabelled=0, classes=None, images_of_class=(3,), suffixes=("jpg",), left_out={},
        shardlist=shards,
    )  # fmt: skip


def begun(folder: Path, tars: int) -> Output:
    output = Output(folder)
    with output.locked():
        output.refuse_another(REQUEST)
        for number in range(tars):
            with output.new_file() as file:
                file.write(b"tar!")
            output.publish(f"{number:05d}.tar")
            output.record(number, entry(number))
    return output


def test_a_packing_goes_on_after_its_records(tmp_path: Path) -> None:
    """A tar without a record, or with another size, is written again."""
    output = begun(tmp_path / "out", tars=3)
    assert output.finished() == [entry(0), entry(1), entry(2)]
    (tmp_path / "out" / "00001.tar").write_bytes(b"cut")
    assert output.finished() == [entry(0)]
    (tmp_path / "out" / "00000.tar").unlink()
    assert output.finished() == []


def test_the_last_record_may_have_no_tar(tmp_path: Path) -> None:
    """If the images that were left are unusable."""
    output = begun(tmp_path / "out", tars=1)
    output.record(1, entry(1, images=0, size=0))
    assert len(output.finished()) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 1}, "what differs: --seed or --in-order; name another folder, or repeat the first command"),
        ({"shard_images": None, "shard_bytes": 9}, "what differs: --shard-images, --shard-bytes"),
        ({"names": "x-%d.tar"}, "--names"),
        ({"images": 8, "fingerprint": "ac"}, "the number of images in the source, the source (names, sizes or times"),
        ({"classes_sha256": "ce"}, "the classes"),
        ({"source": "moved"}, None),
    ],
)
def test_another_packing_is_refused(tmp_path: Path, change: dict[str, object], says: str | None) -> None:
    """Before and after the end; the source may have moved."""
    output, other = begun(tmp_path / "out", tars=1), REQUEST.model_copy(update=change)
    for end in (True, False):
        if says is None:
            output.refuse_another(other)
        else:
            with pytest.raises(RequestError) as error:
                output.refuse_another(other)
            assert says in str(error.value)
        if end:
            output.end(index("00000.tar"), "")


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    """The lock ends with its process."""
    output = begun(tmp_path / "out", tars=1)
    with (tmp_path / "out" / ".packing" / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(RequestError, match="another process packs into it"), output.locked():
            pass
    with output.locked():
        pass


def test_tars_of_something_else_are_refused(tmp_path: Path) -> None:
    """A job that names the folder would read them too."""
    (tmp_path / "mine.tar").touch()
    with pytest.raises(RequestError, match=r"holds tars that were not packed here \(mine.tar\); name another folder"):
        begun(tmp_path, tars=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.tar"]
    output = begun(tmp_path / "out", tars=1)
    (tmp_path / "out" / "late.tar").touch()
    with pytest.raises(RunError, match=r"holds tars of something else \(late.tar\); remove them"):
        output.end(index("00000.tar"), "")


def test_the_end_removes_what_is_not_needed(tmp_path: Path) -> None:
    """The index is there, and the names of what was left out."""
    output = begun(tmp_path / "out", tars=1)
    output.end(index("00000.tar"), "name,reason,detail\n")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["00000.tar", "index.json", "left_out.csv"]
    assert output.index() == index("00000.tar")


def test_an_index_of_something_else_is_refused(tmp_path: Path) -> None:
    """Such as that of wids."""
    (tmp_path / "index.json").write_text('{"shardlist": []}')
    with pytest.raises(RequestError, match=r"index.json is damaged \(packed is missing\)"):
        Output(tmp_path).refuse_another(REQUEST)
