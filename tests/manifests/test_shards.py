"""A job's `images.shards` means these tars, and what is left out is an error or a notice."""

import json
import os

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Images, Storage
from smoothcert.manifests.shards import find_shards
from smoothcert.workers.storage.store import AnyStore
from tests.helpers.found_shards import names, notices


def test_a_spec_is_a_path_a_folder_a_pattern_or_a_list(folder):
    """A list keeps its own order; all others go by name."""
    assert names(folder, "v-01.tar") == ["v-01"]
    assert names(folder, "") == ["t-00", "t-01", "v-00", "v-01", "v-02"]
    assert names(folder, "v-{00..02}.tar") == ["v-00", "v-01", "v-02"]
    assert names(folder, "{v,t}-00.tar") == ["v-00", "t-00"]
    assert names(folder, "v-*.tar") == ["v-00", "v-01", "v-02"]
    assert names(folder, "v-01.tar", "t-*.tar") == ["v-01", "t-00", "t-01"]


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
def test_error_names_what_is_missing(folder, specs, split, says):
    """Nothing is skipped in silence."""
    with pytest.raises(RequestError, match=says):
        names(folder, *specs, split=split)


def test_a_folder_whose_name_ends_in_json_is_a_folder(folder):
    """It is not read as an index."""
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


def test_braces_may_hold_folders_and_globs(folder):
    """Braces may name folders, and each of their words may be a glob; a wildcard in a folder's name is an error."""
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / f"{name}-0.tar").write_bytes(b"1234")
    assert names(folder, "{a,b}/*-0.tar") == ["a-0", "b-0"]
    assert names(folder, "{a/a,b/b}-0.tar") == ["a-0", "b-0"]
    assert names(folder, "{a,b}") == ["a-0", "b-0"]
    with pytest.raises(RequestError, match="only in the file name"):
        names(folder, "[ab]/*.tar")


def test_a_notice_names_inner_folders_that_hold_tars(folder):
    """Not those that the job names, nor hidden ones, nor those without tars."""
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


def test_a_notice_stays_one_line(folder):
    """Of many names it shows the first and counts the others."""
    for number in range(2000):
        (folder / f"{number:04d}.zip").write_bytes(b"")
    (notice,) = notices(folder, "")
    assert "0000.zip, 0001.zip, 0002.zip, 0003.zip, 0004.zip and 1,995 more;" in notice


def test_a_notice_names_tars_that_the_index_does_not_list(folder):
    """Tars of its other splits are listed. There is no notice for explicit names, which say what is meant."""
    splits = {"validation": {"filenames": ["v-00.tar", "v-01.tar"]}, "train": {"filenames": ["t-00.tar"]}}
    (folder / "_info.json").write_text(json.dumps({"splits": splits}))
    (folder / "v-03.tar.gz").write_bytes(b"x")
    for spec in ("", "_info.json"):
        (notice,) = notices(folder, spec, split="validation")
        assert "_info.json does not list t-01.tar, v-02.tar, v-03.tar.gz;" in notice
    assert notices(folder, "v-{00..01}.tar") == notices(folder, "v-00.tar", "t-00.tar") == []


def test_a_broken_link_is_an_error(folder):
    """Neither a folder nor a pattern skips a tar whose target is gone."""
    (folder / "v-03.tar").symlink_to(folder / "gone")
    for spec in ("", "v-*.tar", "v-03.tar"):
        with pytest.raises(RequestError, match=r"v-03\.tar (leads to nothing|does not exist)"):
            names(folder, spec)


def test_a_name_that_is_not_utf8_is_an_error(folder):
    """Rows hold the name of their shard as text."""
    (folder / os.fsdecode(b"v-\xff.tar")).write_bytes(b"1234")
    with pytest.raises(RequestError, match=r"v-\\udcff\.tar.*rename"):
        names(folder, "")


@pytest.fixture
def tars_of_web(web):
    """Three tars on a web server, one with an odd name."""
    web.files |= {f"/d/{name}.tar": b"1234" for name in ("v-00", "v-01", "a%20b")}
    return web


def shards_of_web(*specs, split=None):
    return find_shards(Images(shards=specs, split=split), AnyStore(Storage()))


def test_tars_of_a_web_server_are_named_one_by_one_or_by_braces(tars_of_web):
    """Their names are those that the same tars have in a folder; a query is no pattern."""
    url = f"{tars_of_web.url}/d"
    assert [shard.name for shard in shards_of_web(f"{url}/v-{{00..01}}.tar", f"{url}/a%20b.tar?sig=a/b*c[d]")] == [
        "v-00.tar",
        "v-01.tar",
        "a b.tar",
    ]
    with pytest.raises(RequestError, match=r"v-02\.tar\?\.\.\. does not exist .*correct the name"):
        shards_of_web(f"{url}/v-{{00..02}}.tar?sig=abc")
    with pytest.raises(RequestError, match=r"a web server lists no folders, so \* finds nothing; use braces"):
        shards_of_web(f"{url}/v-*.tar")
    for pattern in ("v-?.tar", "v-0[01].tar", "v-??.tar"):
        with pytest.raises(
            RequestError, match=r"does not exist; on a web server, \? and \[ are no wildcards: use braces"
        ):
            shards_of_web(f"{url}/{pattern}")
    with pytest.raises(RequestError, match=r"http://\[abc/x\.tar: is no URL \(.*\); correct it"):
        shards_of_web("http://[abc/x.tar")
    with pytest.raises(RequestError, match=r"/d/: a web server lists no folders, and no _info.json or index.json"):
        shards_of_web(f"{url}/")


@pytest.mark.parametrize("spec", ["", "/", "/_info.json"])
def test_an_index_on_a_web_server_names_its_tars(tars_of_web, spec):
    """By names that are relative to it, or by URLs; a folder is read through its index."""
    filenames = ["v-00.tar", "a b.tar", f"{tars_of_web.url}/d/v-01.tar"]
    index = {"splits": {"val": {"filenames": filenames, "shard_lengths": [1, 2, 3]}}}
    tars_of_web.files["/d/_info.json"] = json.dumps(index).encode()
    found = shards_of_web(f"{tars_of_web.url}/d{spec}")
    assert [(shard.name, shard.size, shard.images) for shard in found] == [
        ("v-00.tar", 4, 1),
        ("a b.tar", 4, 2),
        ("v-01.tar", 4, 3),
    ]
    del tars_of_web.files["/d/v-01.tar"]
    with pytest.raises(RequestError, match=r"/d/v-01\.tar does not exist \(named by .*_info\.json\)"):
        shards_of_web(f"{tars_of_web.url}/d{spec}")
