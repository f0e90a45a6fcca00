"""Every tar that is not whole, or would lose an image, is refused by name."""

import gzip
import io
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from manifests.errors import ShardError
from tests.helpers.tars import closed, images_field, labelled, member, png, tar_of, write_tar
from workers.shard_reader import read_samples
from workers.tar_headers import image_members, read_index

BLOCK = tarfile.BLOCKSIZE
IMAGES = images_field()
GOOD = tar_of(labelled(4))
SAMPLE = member("0000.png", png()) + member("0000.cls", b"1")
A, B = ("a.png", png(seed=1)), ("b.png", png(seed=2))


def _damaged(at: int) -> bytes:
    return GOOD[:at] + b"\x55" * BLOCK + GOOD[at + BLOCK :]


def _third_header() -> int:
    return sum(len(member(name, content)) for name, content in labelled(4)[:2])


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
    "two dots": (tar_of([("a.1.jpg", png()), ("a.2.jpg", png())]), "a.1.jpg ends in an image suffix"),
    "one of two dots": (tar_of([A, ("b.1.jpg", png())]), "b.1.jpg ends in an image suffix"),
    "no stem": (tar_of([A, (".jpg", png())]), ".jpg ends in an image suffix"),
    "hidden folder": (tar_of([A, ("__meta__/a.jpg", png())]), "__meta__/a.jpg ends in an image suffix"),
    "name in Latin-1": (closed(SAMPLE + member("\udce9.png")), "is no name in UTF-8"),
    "empty file": (b"", "empty"),
    "no members": (closed(b""), "no members"),
    "only a folder": (closed(member("images", kind=tarfile.DIRTYPE)), "holds no image"),
    "no images": (tar_of([("a.cls", b"1"), ("a.json", b"{}")]), "cls, json"),
    "text file": (b"These are no images, but a note about where they went.\n" * 40, "not a whole plain tar"),
    "short text file": (b"moved", "not a whole plain tar"),
    "gzip": (gzip.compress(GOOD), "compressed"),
    "same member twice": (tar_of([A, A]), "a.png comes twice"),
    "same key twice, apart": (tar_of([A, B, ("a.cls", b"1")]), "key a comes twice"),
    "same key twice with images": (tar_of([A, B, A]), "key a comes twice"),
    "two images in a sample": (tar_of([A, ("a.jpg", png())]), "two images"),
    "two images in a sample by case": (tar_of([A, ("a.PNG", png())]), "twice"),
}


@pytest.mark.parametrize(("content", "says"), BAD.values(), ids=BAD.keys())
def test_bad_tar_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    """A tar that cannot be read whole is a ShardError that names the reason, before any sample is given."""
    tar = write_tar(tmp_path, content)
    with pytest.raises(ShardError, match=re.escape(says)):
        image_members(tar, IMAGES)
    with pytest.raises(ShardError, match=re.escape(says)):
        next(read_samples(tar, IMAGES, classes=2))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """Whatever byte a tar ends at before its second zero block, it is refused."""
    whole = closed(SAMPLE, padded=False)
    for length in range(0, len(whole), 37):
        with pytest.raises(ShardError):
            image_members(write_tar(tmp_path, whole[:length]), IMAGES)


def test_damage_in_any_header_is_refused(tmp_path: Path) -> None:
    """A changed byte in the name, size, type or checksum of any header is never passed over."""
    for index in range(4):
        start = sum(len(member(name, content)) for name, content in labelled(4)[: 2 * index])
        for at in (0, 124, 130, 148, 156):
            damaged = bytearray(GOOD)
            damaged[start + at] ^= 0x07
            with pytest.raises(ShardError):
                image_members(write_tar(tmp_path, bytes(damaged)), IMAGES)


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
    found = image_members(tar, IMAGES)
    assert [f"{one.key}.{one.suffix}" for one in found] == list(images)
    assert [whole[one.offset : one.offset + one.size] for one in found] == list(images.values())


def test_what_is_no_sample_is_passed_over(tmp_path: Path) -> None:
    """Folders, names without a dot, hidden metadata and a tar without padding do no harm."""
    folder = member("images", kind=tarfile.DIRTYPE)
    rest = b"".join(member(*one) for one in [("README", b"hello"), ("__index__/info.json", b"{}"), A, B])
    found = image_members(write_tar(tmp_path, closed(folder + rest, padded=False)), IMAGES)
    assert [one.key for one in found] == ["a", "b"]


SYSTEM = [
    *("._a.png", "d/._b.png", "d/._b.cls", ".DS_Store", "d/.DS_Store", "__MACOSX/d/._b.png", "__MACOSX/b.png"),
    *("@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "#recycle/a.png", "Thumbs.db", "desktop.ini"),
]


def test_files_of_operating_systems_are_passed_over_and_counted(tmp_path: Path) -> None:
    """What macOS, Windows and network drives put beside images makes no row, no error, and no other sample."""
    own = [("a.png", png(seed=1)), ("a.cls", b"1"), ("d/b.png", png(seed=2)), ("d/b.cls", b"0")]
    for place in range(len(own) + 1):
        tar = write_tar(tmp_path, tar_of([*own[:place], *((name, b"\0\5\x16\7") for name in SYSTEM), *own[place:]]))
        index = read_index(tar, IMAGES)
        assert [one.key for one in index.images] == ["a", "d/b"]
        assert index.system_members == len(SYSTEM)
        read = [(sample.key, sample.image, sample.label) for sample in read_samples(tar, IMAGES, classes=2)]
        assert read == [("a", png(seed=1), 1), ("d/b", png(seed=2), 0)]


@pytest.mark.parametrize("name", ["_.png", "..png", "my.DS_Store.png", ".hidden.png", "thumbs.png", "lost/found.png"])
def test_names_that_only_look_like_these_are_not(tmp_path: Path, name: str) -> None:
    """Such a file is a sample's image, or an error by name; never is it passed over."""
    tar = write_tar(tmp_path, tar_of([A, (name, png(seed=3))]))
    try:
        assert len(read_index(tar, IMAGES).images) == 2
    except ShardError as error:
        assert name in str(error)


def test_sparse_member_is_named(tmp_path: Path) -> None:
    """GNU tar's sparse files are called that, with the remedy."""
    (tmp_path / "a.png").write_bytes(png() + bytes(1 << 20))
    subprocess.run(["truncate", "-s", "4M", tmp_path / "a.png"], check=True)
    subprocess.run(["tar", "--sparse", "-cf", tmp_path / "s.tar", "-C", tmp_path, "a.png"], check=True)
    with pytest.raises(ShardError, match=r"^a\.png is stored as a sparse file; pack the tar again without --sparse$"):
        read_index(tmp_path / "s.tar", IMAGES)


def test_images_image_says_what_an_image_is(tmp_path: Path) -> None:
    """A suffix with dots counts once images.image names it, and other image files beside it do not."""
    tar = write_tar(tmp_path, tar_of([("a.right.png", png(seed=1)), ("a.left.png", png(seed=2)), ("a.cls", b"1")]))
    found = image_members(tar, images_field(image=["right.png"]))
    assert [(one.key, one.suffix) for one in found] == [("a", "right.png")]
