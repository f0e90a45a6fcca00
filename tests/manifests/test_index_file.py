"""Index files say which tars a data set has, and how many images each tar holds."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.index_file import Member, read_index
from smoothcert.manifests.job import Images
from smoothcert.manifests.shards import find_shards
from smoothcert.workers.storage.store import FolderStore
from tests.helpers.found_shards import names


def test_info_json_names_the_tars_of_each_split(folder):
    """A folder with an _info.json is read through it, and each tar has its number of images."""
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


def test_a_wids_index_names_tars_relative_to_itself(folder):
    """Names may also be absolute."""
    index = {"wids_version": 1, "shardlist": [{"url": "t-01.tar", "nsamples": 2}, {"url": str(folder / "v-00.tar")}]}
    (folder / "index.json").write_text(json.dumps(index))
    assert names(folder, "index.json") == ["t-01", "v-00"]


def test_error_says_what_is_wrong_with_an_index(folder):
    """It says what the file is and what was expected, in words."""
    for content, says in (
        (b'{"shards": []}', "it has no 'shardlist'; expected"),
        (b'{"splits": {"a": {"filenames": ["v-00.tar"], "shard_lengths": [1, 2]}}}', "its parts do not fit; expected"),
        (b"[1]", "its parts do not fit; expected"),
        (b"", "it is empty; fetch it again"),
        (b" \n", "it is empty; fetch it again"),
        (b"<!DOCTYPE html>\n<html>", "it is not valid JSON, and begins with `<!DOCTYPE html>"),
        (b'{"splits": {"a"', """it is not valid JSON, and begins with `{"splits": {"a"`;"""),
        (b"\xff\xfe\x00", "it is not valid JSON, and begins with "),
        (b'{"a":' * 100_000, "it is not valid JSON"),
    ):
        (folder / "index.json").write_bytes(content)
        with pytest.raises(RequestError) as error:
            names(folder, "index.json")
        assert f"index.json is no index of tars: {says}" in str(error.value)
        assert "Error(" not in str(error.value)
        assert str(error.value).isprintable()


_NAMES = st.lists(st.text("abc/.-{} é", min_size=1, max_size=12), min_size=1, max_size=6)
_COUNTS = st.none() | st.integers(0, 10**6)


@given(splits=st.dictionaries(st.text(max_size=8), _NAMES, min_size=1, max_size=3), data=st.data())
def test_every_tar_of_a_split_is_a_member_in_order(splits, data):
    """In either form of index; the tars of the other splits are known, too."""
    chosen = data.draw(st.sampled_from(sorted(splits)))
    counts = {split: data.draw(st.lists(_COUNTS, min_size=len(n), max_size=len(n))) for split, n in splits.items()}
    info = {name: {"filenames": files, "shard_lengths": counts[name]} for name, files in splits.items()}
    wids = [
        {"name": name, "shardlist": [{"url": u, "nsamples": c} for u, c in zip(files, counts[name], strict=True)]}
        for name, files in splits.items()
    ]
    split = None if len(splits) == 1 else chosen
    for content in ({"splits": info}, {"datasets": wids}):
        index = read_index("s3://bucket/data/index.json", json.dumps(content).encode(), split)
        assert index.members == [
            Member(_absolute(name), count) for name, count in zip(splits[chosen], counts[chosen], strict=True)
        ]
        assert index.all_urls == {_absolute(name) for files in splits.values() for name in files}


def _absolute(name: str) -> str:
    return name if name.startswith("/") else f"s3://bucket/data/{name}"


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("a.tar", "/data/a.tar"),
        ("more/a.tar", "/data/more/a.tar"),
        ("/elsewhere/a.tar", "/elsewhere/a.tar"),
        ("s3://bucket/a.tar", "s3://bucket/a.tar"),
    ],
)
def test_a_relative_name_starts_from_the_index(name, url):
    """Absolute paths and URLs stay as they are."""
    data = json.dumps({"shardlist": [{"url": name}]}).encode()
    assert read_index("/data/index.json", data, None).members == [Member(url, None)]


@pytest.mark.parametrize("content", [{"shardlist": []}, {"splits": {"a": {"filenames": []}}}])
def test_an_index_without_tars_is_refused(content):
    """It is no empty data set."""
    with pytest.raises(RequestError, match=r"images\.shards: /index\.json lists no tars"):
        read_index("/index.json", json.dumps(content).encode(), None)
