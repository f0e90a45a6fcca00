"""A tar that is not whole, or would lose an image, is refused, and the error says why."""

import bz2
import gzip
import io
import json
import lzma
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from smoothcert.manifests.errors import ShardError
from smoothcert.workers.runs.records import FileMetadata
from smoothcert.workers.tars.shard_reader import read_samples
from smoothcert.workers.tars.tar_headers import LeftOut, read_tar
from tests.helpers.tars import closed, images_field, labelled, member, png, tar_of, write_tar

BLOCK = tarfile.BLOCKSIZE
IMAGES = images_field()
GOOD = tar_of(labelled(4))
SAMPLE = member("0000.png", png()) + member("0000.cls", b"1")
A, B = ("a.png", png(seed=1)), ("b.png", png(seed=2))


def _damaged(at: int) -> bytes:
    return GOOD[:at] + b"\x55" * BLOCK + GOOD[at + BLOCK :]


def _third_header() -> int:
    return sum(len(member(name, content)) for name, content in labelled(4)[:2])


def _sparse_without_map() -> bytes:
    """A tar whose extended header announces a sparse file, of which there is none."""
    info = tarfile.TarInfo("s.png")
    info.pax_headers = {"GNU.sparse.name": "s.png", "GNU.sparse.realsize": "1000"}
    info.pax_headers |= {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    return closed(info.tobuf(tarfile.PAX_FORMAT) + SAMPLE)


BAD = {
    "truncated inside an image": (GOOD[: BLOCK + 40], "truncated inside 0000.png"),
    "truncated inside a later image": (GOOD[: _third_header() + BLOCK + 40], "truncated inside 0001.png"),
    "truncated inside a header": (GOOD[: _third_header() + 100], "truncated"),
    "truncated at a member boundary": (GOOD[: _third_header()], "truncated at byte"),
    "truncated after one zero block": (closed(SAMPLE, padded=False)[:-BLOCK], "two zero blocks"),
    "two tars concatenated": (GOOD + tar_of([A]), "goes on after its end"),
    "two unpadded tars concatenated": (
        closed(SAMPLE, padded=False) + tar_of([A], padded=False),
        "goes on after its end",
    ),
    "junk far behind the end": (GOOD + bytes(3 << 20) + b"x", "goes on after its end"),
    "damaged header in the middle": (_damaged(_third_header()), "damaged header at byte"),
    "zeroed header in the middle": (
        GOOD[: _third_header()] + bytes(BLOCK) + GOOD[_third_header() + BLOCK :],
        "goes on after its end",
    ),
    "damaged first header": (_damaged(0), "not a whole plain tar"),
    "hard link": (closed(SAMPLE + member("b.png", kind=tarfile.LNKTYPE, link="0000.png")), "b.png is a link"),
    "symbolic link": (closed(SAMPLE + member("b.png", kind=tarfile.SYMTYPE, link="0000.png")), "b.png is a link"),
    "symbolic link as label": (
        closed(SAMPLE + member("b.cls", kind=tarfile.SYMTYPE, link="0000.cls")),
        "b.cls is a link",
    ),
    "pipe": (closed(SAMPLE + member("b.png", kind=tarfile.FIFOTYPE)), "b.png is a special file (a named pipe)"),
    "volume label": (closed(member("backup", kind=b"V") + SAMPLE), "backup is the tar's volume label"),
    "rest of another volume": (closed(member("b.png", kind=b"M") + SAMPLE), "is the rest of a file"),
    "listing of an incremental backup": (closed(member("d", kind=b"D") + SAMPLE), "is a folder listing"),
    "unknown type": (closed(SAMPLE + member("b.png", kind=b"Q")), "b.png is a member of unknown type 'Q'"),
    "sparse header without a map": (_sparse_without_map(), "is not a whole plain tar"),
    "two dots": (tar_of([("a.1.jpg", png()), ("a.2.jpg", png())]), "a.1.jpg ends in an image suffix"),
    "one of two dots": (tar_of([A, ("b.1.jpg", png())]), "b.1.jpg ends in an image suffix"),
    "no stem": (tar_of([A, (".jpg", png())]), ".jpg ends in an image suffix"),
    "hidden folder": (tar_of([A, ("__meta__/a.jpg", png())]), "__meta__/a.jpg ends in an image suffix"),
    "name in Latin-1": (closed(SAMPLE + member("\udce9.png")), "is not a name in UTF-8"),
    "empty file": (b"", "empty"),
    "no members": (closed(b""), "no members"),
    "only a folder": (closed(member("images", kind=tarfile.DIRTYPE)), "holds no image"),
    "no images": (tar_of([("a.cls", b"1"), ("a.json", b"{}")]), "cls, json"),
    "text file": (b"These are no images, but a note about where they went.\n" * 40, "is not a tar: the file is text"),
    "short text file": (b"moved", "not a whole plain tar"),
    "gzip": (gzip.compress(GOOD), "is not a tar: the file is a gzip file; decompress it (compressed tars are not read"),
    "bzip2": (bz2.compress(GOOD), "is not a tar: the file is a compressed file; decompress it"),
    "xz": (lzma.compress(GOOD), "is not a tar: the file is a compressed file; decompress it"),
    "zip": (b"PK\3\4" + bytes(600), "is not a tar: the file is a zip archive; extract it, and pack a tar"),
    "page": (b"<!DOCTYPE html><html>" + b" " * 600, "is not a tar: the file is an HTML page"),
    "Parquet": (b"PAR1" + bytes(600), "is not a tar: the file is a Parquet file; `smoothcert pack` makes tars"),
    "image": (png(64, 64), "is not a tar: the file is a PNG image; pack images into a tar"),
    "LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
        "is not a tar: the file is a Git LFS pointer; run `git lfs pull` for the tar itself",
    ),
    "same member twice": (tar_of([A, A]), "a.png occurs twice"),
    "same key twice, apart": (tar_of([A, B, ("a.cls", b"1")]), "key a occurs twice"),
    "same key twice with images": (tar_of([A, B, A]), "key a occurs twice"),
    "two images in a sample": (tar_of([A, ("a.jpg", png())]), "two images"),
    "two images in a sample by case": (tar_of([A, ("a.PNG", png())]), "twice"),
}


@pytest.mark.parametrize(("content", "says"), BAD.values(), ids=BAD.keys())
def test_bad_tar_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    """The ShardError names the reason, and comes before any sample."""
    tar = write_tar(tmp_path, content)
    with pytest.raises(ShardError, match=re.escape(says)):
        read_tar(tar, IMAGES)
    with pytest.raises(ShardError, match=re.escape(says)):
        next(read_samples(tar, IMAGES, classes=2))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """Whatever byte a tar ends at before its second zero block, it is refused."""
    whole = closed(SAMPLE, padded=False)
    for length in range(0, len(whole), 37):
        with pytest.raises(ShardError):
            read_tar(write_tar(tmp_path, whole[:length]), IMAGES)


def test_damage_in_any_header_is_refused(tmp_path: Path) -> None:
    """A changed byte in the name, size, type or checksum of any header is never passed over."""
    for index in range(4):
        start = sum(len(member(name, content)) for name, content in labelled(4)[: 2 * index])
        for at in (0, 124, 130, 148, 156):
            damaged = bytearray(GOOD)
            damaged[start + at] ^= 0x07
            with pytest.raises(ShardError):
                read_tar(write_tar(tmp_path, bytes(damaged)), IMAGES)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_offsets_hold_in_every_tar_format(tmp_path: Path, form: int) -> None:
    """In each dialect of tar, long names and folders included, offset and size point at the image's bytes."""
    tar = tmp_path / "shard.tar"
    images = {f"{'d' * 60}/{'n' * length}.png": png(seed=length) for length in (1, 80)}
    if form != tarfile.USTAR_FORMAT:
        images[f"{'long' * 60}/ä.png"] = png(seed=3)
    with tarfile.open(tar, "w", format=form) as archive:
        archive.addfile(tarfile.TarInfo("d" * 60))
        archive.getmembers()[0].type = tarfile.DIRTYPE
        for name, content in images.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    whole = tar.read_bytes()
    found = read_tar(tar, IMAGES).images
    assert [f"{one.key}.{one.suffix}" for one in found] == list(images)
    assert [whole[one.offset : one.offset + one.size] for one in found] == list(images.values())


def test_members_that_are_not_samples_do_no_harm(tmp_path: Path) -> None:
    """Folders, names without a dot, hidden metadata; nor does a tar without padding."""
    folder = member("images", kind=tarfile.DIRTYPE)
    rest = b"".join(member(*one) for one in [("README", b"hello"), ("__index__/info.json", b"{}"), A, B])
    found = read_tar(write_tar(tmp_path, closed(folder + rest, padded=False)), IMAGES).images
    assert [one.key for one in found] == ["a", "b"]


SYSTEM = [
    *("._a.png", "d/._b.png", "d/._b.cls", ".DS_Store", "d/.DS_Store", "__MACOSX/d/._b.png", "__MACOSX/b.png"),
    *(
        "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg",
        "a.png:Zone.Identifier",
        ".ipynb_checkpoints/a.png",
        "~$a.png",
        "#recycle/a.png",
        "Thumbs.db",
        "desktop.ini",
    ),
    *(".@__thumb/default_a.png", "d/.thumbnails/a.png", ".Trash-1000/files/a.png", ".Trash-0/a.png"),
    *(".DocumentRevisions-V100/a.png", "Network Trash Folder/a.png", "Temporary Items/folders.1/a.png"),
]


def test_files_of_operating_systems_are_left_out_and_counted(tmp_path: Path) -> None:
    """Files that macOS, Windows and network drives add make no row and no error, and change no other sample."""
    own = [("a.png", png(seed=1)), ("a.cls", b"1"), ("d/b.png", png(seed=2)), ("d/b.cls", b"0")]
    for place in range(len(own) + 1):
        tar = write_tar(tmp_path, tar_of([*own[:place], *((name, b"\0\5\x16\7") for name in SYSTEM), *own[place:]]))
        contents = read_tar(tar, IMAGES)
        assert [one.key for one in contents.images] == ["a", "d/b"]
        assert contents.left_out == LeftOut(system_members=len(SYSTEM))
        read = [(sample.key, sample.image, sample.label) for sample in read_samples(tar, IMAGES, classes=2)]
        assert read == [("a", png(seed=1), 1), ("d/b", png(seed=2), 0)]


@pytest.mark.parametrize(
    "name", ["_.png", "..png", "my.DS_Store.png", ".hidden.png", "thumbs.png", "lost/found.png", ".Trash-me/a.png"]
)
def test_names_that_only_look_like_system_files_are_kept(tmp_path: Path, name: str) -> None:
    """Such a file is the image of a sample, or an error names it."""
    tar = write_tar(tmp_path, tar_of([A, (name, png(seed=3))]))
    try:
        assert len(read_tar(tar, IMAGES).images) == 2
    except ShardError as error:
        assert name in str(error)


def test_folders_of_operating_systems_are_not_counted(tmp_path: Path) -> None:
    """Only files are, because the notice is about files."""
    folders = member("__MACOSX", kind=tarfile.DIRTYPE) + member("d/@eaDir", kind=tarfile.DIRTYPE)
    tar = write_tar(tmp_path, closed(folders + member("__MACOSX/._a.png", b"x") + SAMPLE))
    assert read_tar(tar, IMAGES).left_out == LeftOut(system_members=1)


@pytest.mark.parametrize("suffix", ["bmp", "tiff", "tif", "jfif", "jpe", "gif", "avif", "heic", "BMP", "right.bmp"])
def test_samples_whose_image_has_another_suffix_are_counted(tmp_path: Path, suffix: str) -> None:
    """Wherever they are, with a label or without. They make no row."""
    members = [A, ("a.cls", b"1"), (f"b.{suffix}", b"x"), ("b.cls", b"1"), ("b.json", b"{}"), (f"d/c.{suffix}", b"x")]
    for tar in (tar_of(members), tar_of(members[2:] + members[:2])):
        contents = read_tar(write_tar(tmp_path, tar), IMAGES)
        assert [one.key for one in contents.images] == ["a"]
        assert contents.left_out == LeftOut(0, 2, frozenset({suffix.lower(), "cls", "json"}))
    added = read_tar(write_tar(tmp_path, tar_of(members)), images_field(image=["png", suffix]))
    assert [one.key for one in added.images] == ["a", "b", "d/c"]
    assert added.left_out == LeftOut()


def test_a_labelled_sample_without_image_is_counted(tmp_path: Path) -> None:
    """Whether its image has an unknown suffix or is missing."""
    tar = write_tar(tmp_path, tar_of([A, ("a.cls", b"1"), ("b.cls", b"1"), ("c.picture", b"x"), ("c.cls", b"1")]))
    assert read_tar(tar, IMAGES).left_out == LeftOut(0, 2, frozenset({"cls", "picture"}))


@pytest.mark.parametrize(
    "rest",
    [
        [("readme.txt", b"x"), ("info.json", b"{}"), ("licence.md", b"x")],  # samples of metadata alone
        [("a.seg.bmp", b"x"), ("a.mask.tiff", b"x"), ("a.gif", b"x")],  # other images of a sample that has one
        [("__meta__/b.bmp", b"x"), ("README", b"x"), (".bmp", b"x")],  # what is no sample
        [("._b.bmp", b"x"), ("__MACOSX/b.bmp", b"x"), ("@eaDir/b.bmp", b"x")],  # files of operating systems
    ],
)
def test_other_members_are_not_counted_as_samples_without_image(tmp_path: Path, rest: list[tuple[str, bytes]]) -> None:
    """Metadata, further images of a sample, hidden members, and files of operating systems."""
    contents = read_tar(write_tar(tmp_path, tar_of([A, *rest])), IMAGES)
    assert [one.key for one in contents.images] == ["a"]
    assert contents.left_out.samples_without_image == 0


def test_counts_of_what_is_left_out_add_up() -> None:
    """Over several tars, and after they were written to metadata. Older files lack some figures."""
    one, other = LeftOut(1, 2, frozenset({"bmp"})), LeftOut(3, 4, frozenset({"bmp", "cls"}))
    assert one + other == LeftOut(4, 6, frozenset({"bmp", "cls"}))
    written = json.loads(json.dumps(one.as_json()))
    assert FileMetadata.model_validate({"run_id": "a", **written}).left_out == one
    assert FileMetadata.model_validate({"run_id": "a", "system_members": 1}).left_out == LeftOut(1)


def test_sparse_member_is_named(tmp_path: Path) -> None:
    """The error names GNU tar's option, with the remedy."""
    (tmp_path / "a.png").write_bytes(png() + bytes(1 << 20))
    subprocess.run(["truncate", "-s", "4M", tmp_path / "a.png"], check=True)
    subprocess.run(["tar", "--sparse", "-cf", tmp_path / "s.tar", "-C", tmp_path, "a.png"], check=True)
    with pytest.raises(ShardError, match=r"^a\.png is stored as a sparse file; pack the tar again without --sparse$"):
        read_tar(tmp_path / "s.tar", IMAGES)


def test_images_image_says_what_an_image_is(tmp_path: Path) -> None:
    """A suffix with dots counts if images.image names it. Other images of the sample do not count then."""
    tar = write_tar(tmp_path, tar_of([("a.right.png", png(seed=1)), ("a.left.png", png(seed=2)), ("a.cls", b"1")]))
    found = read_tar(tar, images_field(image=["right.png"])).images
    assert [(one.key, one.suffix) for one in found] == [("a", "right.png")]
