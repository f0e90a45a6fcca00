"""Which tars a pattern means."""

import json
import os

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Images
from smoothcert.manifests.shards import find_shards
from smoothcert.workers.storage.store import FolderStore


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
        (("nowhere",), None, r"nowhere does not exist; .* holds notes\.txt, t-00\.tar"),
        (("v-00.tar", "v-*.tar"), None, "1 base names come twice, such as v-00.tar"),
        (("v-{00.tar",), None, "brace"),
        (("index.json",), None, "does not exist"),
        (("v-00.tar",), "validation", "needs an index file"),
        (("v-0O.tar",), None, r"v-0O\.tar does not exist; .* holds v-0\d\.tar"),  # near names first
        (("V-*.tar",), None, r"V-\*\.tar matches nothing; .* holds .*v-00\.tar"),
        (("sub/v-00.tar",), None, r"sub/v-00\.tar does not exist; .* holds notes\.txt"),
    ],
)
def test_what_is_not_there_is_named(folder, specs, split, says):
    """Nothing is skipped in silence."""
    with pytest.raises(RequestError, match=says):
        names(folder, *specs, split=split)


def test_a_broken_index_is_named(folder):
    """An index that is not one says what it is and what was expected, in words."""
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


@pytest.mark.parametrize(
    ("spec", "name", "remedy"),
    [
        ("*.tar", "00.tar.gz", r"00\.tar\.gz \(unpack it with `gunzip`\)"),
        ("0[0-9].tar", "00.TAR", r"00\.TAR \(rename it to 00\.tar\)"),
        ("00.tar", "00.tar.zst", r"00\.tar\.zst \(unpack it with `unzstd`\)"),
        ("{00..01}.tar", "00.tgz", r"00\.tgz \(unpack it with `gunzip`\)"),
    ],
)
def test_a_tar_that_is_there_in_another_form_is_no_wrong_name(tmp_path, spec, name, remedy):
    """The name is right; the file has to be unpacked or renamed."""
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(RequestError, match=rf"holds what cannot be read in place; make tars of them: {remedy}$"):
        names(tmp_path, spec)


def test_a_file_that_looks_like_an_index_is_read_as_one(folder):
    """A folder whose name ends in .json is a folder; a missing index is a missing file."""
    (folder / "data.json").mkdir()
    (folder / "data.json" / "x-00.tar").write_bytes(b"x-00")
    assert names(folder, "data.json") == ["x-00"]


SPECIAL = [
    "with [brackets]",
    "{a,b}",
    "{0..2}",
    "what?",
    "star*",
    "~",
    "%20",
    "#",
    "[!x]",
    "we:",
    "back\\slash",
    "{x",
    "]",
]


@pytest.mark.parametrize("name", SPECIAL)
def test_a_folder_that_exists_is_taken_literally(folder, name):
    """Only what comes after the folders that exist is a pattern, whatever characters their names have."""
    inside = folder / name / name
    inside.mkdir(parents=True)
    for tar in ("a-00", "a-01"):
        (inside / f"{tar}.tar").write_bytes(b"1234")
    (inside / f"{name}.tar").write_bytes(b"1234")
    assert names(inside, "a-00.tar") == ["a-00"]
    assert (
        names(inside, "a-{00..01}.tar") == names(inside, "a-*.tar") == names(inside, "a-0[01].tar") == ["a-00", "a-01"]
    )
    assert names(inside, "a-{00,01}.tar") == names(inside, "{a-00,a-01}.tar") == ["a-00", "a-01"]
    assert names(inside, "") == sorted(["a-00", "a-01", name])
    assert names(inside, f"{name}.tar") == [name]  # rather than what it means as a pattern
    with pytest.raises(RequestError, match="matches nothing"):
        names(inside, "b-*.tar")


def test_braces_hold_folders_and_globs(folder):
    """Braces may name folders, and each of their words may be a glob; a wildcard in a folder's name is an error."""
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / f"{name}-0.tar").write_bytes(b"1234")
    assert names(folder, "{a,b}/*-0.tar") == ["a-0", "b-0"]
    assert names(folder, "{a/a,b/b}-0.tar") == ["a-0", "b-0"]
    assert names(folder, "{a,b}") == ["a-0", "b-0"]
    with pytest.raises(RequestError, match="only the file name"):
        names(folder, "[ab]/*.tar")


def notices(folder, *specs, split=None):
    heard = []
    shards = [str(folder / spec) for spec in specs]
    find_shards(Images(shards=shards, split=split), FolderStore(), heard.append)
    return heard


@pytest.mark.parametrize(
    "name", ["v-03.tar.gz", "v-03.TGZ", "v-03.tar.zst", "v-03.tar.bz2", "v-03.txz", "v-03.TAR", "v-03.Tar"]
)
def test_a_folder_is_not_halved(folder, name):
    """A tar that cannot be read in place is an error in a folder, with the way out; a glob leaves it out aloud."""
    (folder / name).write_bytes(b"x")
    with pytest.raises(RequestError, match=rf"cannot be read in place: {name} \((unpack|rename) it .*\*\.tar"):
        names(folder, "")
    assert names(folder, "v-0*.tar") == ["v-00", "v-01", "v-02"]
    (notice,) = notices(folder, "v-0*.tar")
    assert f"leaves out {name};" in notice
    (folder / "v-03.tar").write_bytes(b"v-03")  # unpacked since
    assert names(folder, "")[-1] == "v-03"
    (notice,) = notices(folder, "")
    assert f"not read: {name};" in notice


@pytest.mark.parametrize(
    "name",
    [
        *("v-03.tar.part", "v-03.tar.incomplete", "v-03.tar.1", "v-03.tar~", "v-03.zip", "v-03", "x.parquet", "a.jpg"),
        *("SHARD-01", "V-03", "v-03.tar.txt", "v-03.tar.json", "README.tar.txt"),
        *(".v-03.tar.AbCdEf", ".v-03.tgz.AbCdEf"),  # as rsync calls what it has begun
    ],
)
def test_a_file_of_a_folder_that_is_not_read_is_mentioned(folder, name):
    """One line names what lies beside the tars and may belong to the data."""
    (folder / name).write_bytes(b"x")
    (notice,) = notices(folder, "")
    assert f"{folder}/ also holds what is not read: {name};" in notice


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "README",
        "LICENSE",
        "labels.txt",
        "v-00.cls",
        "v-00.tar.md5",
        "SHA256SUMS",
        ".DS_Store",
        "._v-00.tar",
        "v-00.idx",
        "stats.json",
        ".hidden",
        "weights.pt",
        "MANIFEST",
        "MD5SUMS",
        "_SUCCESS",
        "LICENSE-2.0",
        "v-00.tar.sha256",
        "v-00.tar.gz.asc",
        "._v-00.tar.gz",
    ],
)
def test_harmless_files_are_not_mentioned(folder, name):
    """What people keep beside their tars is no part of the data; `._NAME` is a Mac's, and no tar."""
    (folder / name).write_bytes(b"x")
    assert notices(folder, "") == []
    assert names(folder, "*.tar") == names(folder, "") == ["t-00", "t-01", "v-00", "v-01", "v-02"]


def test_folders_within_are_mentioned_where_they_hold_tars(folder):
    """Unless they are named, too; hidden ones and those without tars are not."""
    for name in ("more", "empty", ".git", "05.tar"):
        (folder / name).mkdir()
    for name in ("more", ".git"):
        (folder / name / "m-00.tar").write_bytes(b"m-00")
    (notice,) = notices(folder, "")
    assert "not read: 05.tar/, more/;" in notice
    (notice,) = notices(folder, "*.tar")
    assert "leaves out 05.tar/;" in notice
    (folder / "05.tar").rmdir()
    (folder / "deep" / "part").mkdir(parents=True)
    (folder / "deep" / "part" / "d-00.tar").write_bytes(b"d-00")
    (notice,) = notices(folder, "")
    assert "not read: deep/, more/;" in notice
    assert notices(folder, "", "more", "deep/part") == []
    (folder / "deep" / "part" / "d-00.tar").unlink()
    assert (
        notices(folder, "", "more") == notices(folder, "", "more/m-00.tar") == notices(folder, "", "more/m-*.tar") == []
    )


def test_many_names_are_counted(folder):
    """A notice stays one line."""
    for number in range(2000):
        (folder / f"{number:04d}.zip").write_bytes(b"")
    (notice,) = notices(folder, "")
    assert "0000.zip, 0001.zip, 0002.zip, 0003.zip, 0004.zip and 1,995 more;" in notice


def test_tars_that_an_index_does_not_list_are_mentioned(folder):
    """Those of its other splits are listed; explicit names say which tars are meant, and leave nothing to mention."""
    splits = {"validation": {"filenames": ["v-00.tar", "v-01.tar"]}, "train": {"filenames": ["t-00.tar"]}}
    (folder / "_info.json").write_text(json.dumps({"splits": splits}))
    (folder / "v-03.tar.gz").write_bytes(b"x")
    for spec in ("", "_info.json"):
        (notice,) = notices(folder, spec, split="validation")
        assert "_info.json does not list t-01.tar, v-02.tar, v-03.tar.gz;" in notice
    assert notices(folder, "v-{00..01}.tar") == notices(folder, "v-00.tar", "t-00.tar") == []


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (["a.zip", "b.tar.gz", "c.txt"], r"holds 3 files but no \*\.tar: a\.zip, b\.tar\.gz, c\.txt; .*gunzip"),
        (["c.txt"], r"holds 1 file but no \*\.tar: c\.txt; name a folder that holds tars"),
        (["sub/a.tar"], r"holds 1 folder but no \*\.tar: sub/"),
        ([], "is empty"),
    ],
)
def test_a_folder_without_tars_says_what_it_holds(folder, there, says):
    """The folder exists, and the error says so."""
    (folder / "other").mkdir()
    for name in there:
        (folder / "other" / name).parent.mkdir(exist_ok=True)
        (folder / "other" / name).write_bytes(b"x")
    with pytest.raises(RequestError, match=f"other/ {says}"):
        names(folder, "other")


def test_a_link_that_leads_to_nothing_is_an_error(folder):
    """Neither a folder nor a glob passes over a tar whose target is gone."""
    (folder / "v-03.tar").symlink_to(folder / "gone")
    for spec in ("", "v-*.tar", "v-03.tar"):
        with pytest.raises(RequestError, match=r"v-03\.tar (leads to nothing|does not exist)"):
            names(folder, spec)


def test_a_name_that_is_no_text_is_an_error(folder):
    """Rows carry the name of their shard, as text."""
    (folder / os.fsdecode(b"v-\xff.tar")).write_bytes(b"1234")
    with pytest.raises(RequestError, match=r"v-\\udcff\.tar.*rename"):
        names(folder, "")
