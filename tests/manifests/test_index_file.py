"""Index files say which tars a data set has, and how many images each tar holds."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.index_file import Member, classes_by_pack, read_index
from smoothcert.manifests.job import Images
from smoothcert.manifests.shards import find_shards, find_shards_and_classes
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


def packed(folder, *names, classes=("cat", "owl"), size=4):
    """An index as `smoothcert pack` writes it."""
    shards = [{"url": name, "nsamples": 7, "filesize": size} for name in names]
    index = {"packed": {}, "classes": classes and list(classes), "images_of_class": [7, 0], "shardlist": shards}
    (folder / "index.json").write_text(json.dumps(index))


def classes_of(*specs):
    return find_shards_and_classes(Images(shards=tuple(map(str, specs))), FolderStore()).classes


def test_a_packed_folder_is_read_through_its_index(folder):
    """Other files of that name are not its index; every way to name its tars finds the classes."""
    (folder / "index.json").write_text(json.dumps({"shardlist": [{"url": "v-00.tar"}]}))
    assert len(names(folder, "")) == 5
    packed(folder, "v-00.tar", "v-01.tar")
    assert names(folder, "") == names(folder, "v-0[01].tar") == ["v-00", "v-01"]
    for spec in ("", "v-*.tar", "v-01.tar", "index.json"):
        assert classes_of(folder / spec) == ["cat", "owl"]
    assert [shard.images for shard in find_shards(Images(shards=str(folder)), FolderStore())] == [7, 7]
    packed(folder, "v-00.tar", classes=None)
    assert classes_of(folder) == ["", ""]


def test_classes_of_several_folders_must_agree(folder, tmp_path):
    """And each folder must have an index."""
    assert classes_of(folder / "v-*.tar") == []
    packed(folder, "v-00.tar")
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.tar").write_bytes(b"tar!")
    both = folder, other / "x.tar"
    assert classes_of(*both) == []
    packed(other, "x.tar", classes=("owl", "cat"))
    assert classes_of(*both) == []
    packed(other, "x.tar")
    assert classes_of(*both) == ["cat", "owl"]


def test_a_tar_of_another_size_than_packed_is_an_error(folder):
    """It was cut on its way."""
    packed(folder, "v-00.tar", size=5)
    with pytest.raises(RequestError, match=r"v-00.tar has 4 bytes, but .*index.json says 5; copy it again"):
        names(folder, "")


def test_a_folder_that_is_being_packed_is_refused(folder):
    """Half of the images are no data set."""
    (folder / ".packing").mkdir()
    for spec in ("", "v-*.tar"):
        with pytest.raises(RequestError, match="not packed to its end; run the same `smoothcert pack` command again"):
            names(folder, spec)
    packed(folder, "v-00.tar")  # killed just before .packing was removed
    assert names(folder, "") == ["v-00"]
    assert len(names(folder, "v-*.tar")) == 3


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"packed": 1}', b'{"packed": {}}', b"\xff", b'{"a":' * 10**5])
def test_other_files_have_no_classes(content):
    """Whatever they hold."""
    assert classes_by_pack(content) is None


@pytest.mark.parametrize("name", ["/data/x.tar", "//data/x.tar", "file:///data/x.tar", "FILE:/data/x.tar"])
@pytest.mark.parametrize("index", ["https://h/d/index.json", "HTTP://h/d/index.json", "hf://datasets/o/n/index.json"])
def test_an_index_on_a_server_leads_to_no_file_of_this_machine(index, name):
    """Others wrote it, and its paths are those of their machine."""
    data = json.dumps({"shardlist": [{"url": "a.tar"}, {"url": name}]}).encode()
    with pytest.raises(RequestError, match=r"images\.shards: \S*data/x\.tar is a path on one machine.*index file: "):
        read_index(index, data, None)
