"""The name of a file beside the tars decides whether it is an error, a notice or nothing."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.skipped import closest, is_misnamed, is_passed_over, is_tar, make_tars_of, readable_name
from tests.helpers.found_shards import names, notices


@pytest.mark.parametrize(
    ("spec", "name", "remedy"),
    [
        ("*.tar", "00.tar.gz", r"00\.tar\.gz \(unpack it with `gunzip`\)"),
        ("0[0-9].tar", "00.TAR", r"00\.TAR \(rename it to 00\.tar\)"),
        ("00.tar", "00.tar.zst", r"00\.tar\.zst \(unpack it with `unzstd`\)"),
        ("{00..01}.tar", "00.tgz", r"00\.tgz \(unpack it with `gunzip`\)"),
    ],
)
def test_error_says_how_to_unpack_or_rename_the_tar_that_was_meant(tmp_path, spec, name, remedy):
    """The name is right, but the file cannot be read in place."""
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(RequestError, match=rf"holds what cannot be read in place; make tars of them: {remedy}$"):
        names(tmp_path, spec)


@pytest.mark.parametrize(
    "name", ["v-03.tar.gz", "v-03.TGZ", "v-03.tar.zst", "v-03.tar.bz2", "v-03.txz", "v-03.TAR", "v-03.Tar"]
)
def test_an_unreadable_tar_in_a_folder_is_an_error(folder, name):
    """The error has the remedy; a pattern leaves the tar out and a notice says so."""
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
def test_a_notice_names_a_file_that_may_belong_to_the_data(folder, name):
    """It lies beside the tars and is not read."""
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
    """People keep such files beside their tars; macOS adds `._NAME`, which is no tar."""
    (folder / name).write_bytes(b"x")
    assert notices(folder, "") == []
    assert names(folder, "*.tar") == names(folder, "") == ["t-00", "t-01", "v-00", "v-01", "v-02"]


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (["a.zip", "b.tar.gz", "c.txt"], r"holds 3 files but no \*\.tar: a\.zip, b\.tar\.gz, c\.txt; .*gunzip"),
        (["c.txt"], r"holds 1 file but no \*\.tar: c\.txt; name a folder that holds tars"),
        (["sub/a.tar"], r"holds 1 folder but no \*\.tar: sub/"),
        ([], "is empty"),
    ],
)
def test_error_says_what_a_folder_without_tars_holds(folder, there, says):
    """The folder exists, so the error does not say that it is missing."""
    (folder / "other").mkdir()
    for name in there:
        (folder / "other" / name).parent.mkdir(exist_ok=True)
        (folder / "other" / name).write_bytes(b"x")
    with pytest.raises(RequestError, match=f"other/ {says}"):
        names(folder, "other")


@pytest.mark.parametrize(
    ("packer", "name"),
    [
        *(("gzip", f"a.{suffix}") for suffix in ("tar.gz", "tgz", "TGZ", "tar.GZ")),
        *(("bzip2", f"a.{suffix}") for suffix in ("tar.bz2", "tbz2", "tbz")),
        *(("xz", f"a.{suffix}") for suffix in ("tar.xz", "txz")),
        *(("zstd", f"a.{suffix}") for suffix in ("tar.zst", "tzst")),
    ],
)
def test_the_remedy_makes_the_file_that_is_readable(tmp_path, packer, name):
    """The command that the error shows, run on the file, leaves the tar of the name that is expected."""
    tool = make_tars_of([name]).partition("`")[2].partition("`")[0]
    if shutil.which(packer) is None or shutil.which(tool) is None:
        pytest.skip(f"no {packer} here")
    packed = subprocess.run([packer, "-c"], input=b"a tar", capture_output=True, check=True).stdout
    (tmp_path / name).write_bytes(packed)
    subprocess.run([tool, "-q", name], cwd=tmp_path, check=True)
    (made,) = {path.name for path in tmp_path.iterdir()} - {name}  # unzstd keeps what it unpacks
    assert made.lower() == "a.tar"
    assert readable_name(name) == "a.tar"


@given(st.text(max_size=12) | st.from_regex(r"[a.]{0,3}\.(tar|TAR|tgz|tar\.[a-z]{2})", fullmatch=True))
def test_a_file_is_a_tar_or_has_a_readable_name_or_neither(name):
    """A tar needs no other name; the readable name of another file is that of a tar, and needs no further change."""
    readable = readable_name(name)
    assert not (is_tar(name) and readable)
    assert not (is_tar(name) and is_passed_over(name))
    if readable is not None:
        assert readable.endswith(".tar")
        assert readable_name(readable) is None


@pytest.mark.parametrize(
    ("name", "pattern", "misnamed"),
    [
        ("V-00.tar", "v-*.tar", True),  # upper case
        ("v-00.tgz", "v-*.tar", True),
        ("v-00.tar.part", "v-*.tar", True),
        ("t-00.tgz", "v-*.tar", False),  # another name
        ("v-00.tar.md5", "v-*.tar", False),  # a checksum
        ("v-00.txt", "v-*.tar", False),
    ],
)
def test_a_pattern_means_files_but_for_case_and_suffix(name, pattern, misnamed):
    """Those are worth a notice; others are not."""
    assert is_misnamed(name, pattern) is misnamed


def test_near_names_come_first_and_all_names_if_none_is_near():
    """Upper case does not matter, and hidden files are not shown."""
    assert closest("V-0O.tar", ["v-00.tar", "notes.txt", ".v-00.tar"]) == ["v-00.tar"]
    assert closest("qqq", ["v-00.tar", "notes.txt", ".hidden"]) == ["v-00.tar", "notes.txt"]
