"""Which tars a pattern means."""

import json

import pytest

from manifests.errors import RequestError
from manifests.job import Images
from manifests.shards import find_shards
from workers.storage import FolderStore


@pytest.fixture
def folder(tmp_path):
    """Five tars and a stray file."""
    for name in ("v-00", "v-01", "v-02", "t-00", "t-01"):
        (tmp_path / f"{name}.tar").write_bytes(name.encode())
    (tmp_path / "notes.txt").write_text("x")
    return tmp_path


def names(folder, *specs, split=None):
    shards = [str(folder / spec) for spec in specs]
    found = find_shards(Images(shards=shards if len(shards) > 1 else shards[0], split=split), FolderStore())
    assert all(shard.size == 4 and shard.fingerprint for shard in found)
    return [shard.name.removesuffix(".tar") for shard in found]


def test_forms(folder):
    """A path, a folder, a brace pattern, a glob, and a list in its own order."""
    assert names(folder, "v-01.tar") == ["v-01"]
    assert names(folder, "") == ["t-00", "t-01", "v-00", "v-01", "v-02"]
    assert names(folder, "v-{00..02}.tar") == ["v-00", "v-01", "v-02"]
    assert names(folder, "{v,t}-00.tar") == ["v-00", "t-00"]
    assert names(folder, "v-*.tar") == ["v-00", "v-01", "v-02"]
    assert names(folder, "v-01.tar", "t-*.tar") == ["v-01", "t-00", "t-01"]


def test_timm_index(folder):
    """_info.json lists the files of each split; a folder with one is read through it."""
    split = {"filenames": ["v-00.tar", "v-02.tar"], "shard_lengths": [3, 4], "num_samples": 7, "name": "validation"}
    other = {"filenames": ["t-00.tar"], "shard_lengths": [1], "num_samples": 1, "name": "train"}
    (folder / "_info.json").write_text(json.dumps({"splits": {"validation": split, "train": other}}))
    assert names(folder, "_info.json", split="validation") == ["v-00", "v-02"]
    assert names(folder, "", split="train") == ["t-00"]
    counts = find_shards(Images(shards=str(folder), split="validation"), FolderStore())
    assert [shard.images for shard in counts] == [3, 4]
    with pytest.raises(RequestError, match=r"images\.split: not named; one of: validation, train"):
        names(folder, "_info.json")
    with pytest.raises(RequestError, match="'test' is not there; one of: validation, train"):
        names(folder, "_info.json", split="test")


def test_wids_index(folder):
    """A wids index lists URLs relative to itself."""
    index = {"wids_version": 1, "shardlist": [{"url": "t-01.tar", "nsamples": 2}, {"url": str(folder / "v-00.tar")}]}
    (folder / "index.json").write_text(json.dumps(index))
    assert names(folder, "index.json") == ["t-01", "v-00"]


@pytest.mark.parametrize(
    ("specs", "split", "says"),
    [
        (("x-{0..2}.tar",), None, r"x-0\.tar does not exist \(named by"),
        (("x-*.tar",), None, "matches nothing"),
        (("nowhere",), None, r"no such file, and no \*\.tar"),
        (("v-00.tar", "v-*.tar"), None, "1 base names come twice, such as v-00.tar"),
        (("v-{00.tar",), None, "brace"),
        (("index.json",), None, "does not exist"),
        (("v-00.tar",), "validation", "needs an index file"),
    ],
)
def test_what_is_not_there_is_named(folder, specs, split, says):
    """Nothing is skipped in silence."""
    with pytest.raises(RequestError, match=says):
        names(folder, *specs, split=split)


def test_a_broken_index_is_named(folder):
    """An index that is not one says what was expected."""
    (folder / "index.json").write_text('{"shards": []}')
    with pytest.raises(RequestError, match="is no index of tars"):
        names(folder, "index.json")
