"""What DATA says of itself: the suffixes of its images, their size, where the labels are and how they count.

Only the first megabytes of a few tars are read. `smoothcert plan` reads all of them.
Not covered: the network (network.py).
"""

import io
import json
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Images
from smoothcert.manifests.locations import IMAGENET, anchored, name_of
from smoothcert.manifests.names import listed, printable
from smoothcert.manifests.shards import find_shards_and_classes
from smoothcert.workers.storage.store import Store
from smoothcert.workers.tars.class_names import read_names
from smoothcert.workers.tars.tar_headers import IMAGE_SUFFIXES, is_system_member

_MAX_TARS, _BYTES_OF_A_TAR, _MAX_SIZES = 3, 32 * 1024**2, 200
_NEARLY_ALL = 0.9
_LABEL_MEMBERS = ("cls", "label", "class", "target", "cls.txt", "label.txt", "txt")  # the likeliest first
_LABEL_FIELDS = ("label", "cls", "class", "target", "class_id", "label_id", "class_index", "category_id")

Sample = Mapping[str, bytes]
"""The members of a sample by suffix."""


@dataclass(frozen=True)
class Looked:
    """What some samples of the tars show.

    Attributes:
        shards: DATA with an absolute path.
        name: of the data, for people.
        samples: the samples.
        suffixes: of their images.
        side: of the images, if all are squares of one size; else None.
        packed_classes: names of the classes by the index of `smoothcert pack`; empty without.
        notices: about files that are not read.
        tars: how many tars there are.
    """

    shards: str
    name: str
    samples: Sequence[Sample]
    suffixes: tuple[str, ...]
    side: int | None
    packed_classes: tuple[str, ...]
    notices: tuple[str, ...]
    tars: int


@dataclass(frozen=True)
class Labels:
    """What a job says about labels.

    Attributes:
        keys: of its section `images`.
        comment: a sentence about them.
        notice: what the user must do; None if nothing.
    """

    keys: dict[str, Any] = field(default_factory=dict)
    comment: str = ""
    notice: str | None = None


def look_at(data: str, store: Store) -> Looked:
    """Read some samples.

    Args:
        data: DATA, as the user wrote it: what `images.shards` of a job may be.
        store: the store that holds it.
    Raises:
        RequestError: there are no tars, or no images in them.
    """
    shards, notices = anchored(data), list[str]()
    _refuse_unpacked(data, shards)
    found = find_shards_and_classes(Images(shards=shards, label=None), store, notices.append)
    last = len(found.shards) - 1
    tars = [found.shards[place * last // (_MAX_TARS - 1)].url for place in range(_MAX_TARS)]
    samples = [sample for url in dict.fromkeys(tars) for sample in _samples_of(url, store)]
    with_image = [sample for sample in samples if _image_of(sample) is not None]
    if not with_image:
        there = sorted({suffix for sample in samples for suffix in sample})
        raise RequestError(f"DATA: {tars[0]} begins with no image (it holds {listed(there) or 'nothing'}); name others")
    suffixes = Counter(_image_of(sample) for sample in with_image)
    return Looked(
        shards=shards,
        name=name_of(shards.rstrip("/")),
        samples=with_image,
        suffixes=tuple(suffix for suffix, _ in suffixes.most_common() if suffix is not None),
        side=_common_side(with_image[:: max(1, len(with_image) // _MAX_SIZES)]),
        packed_classes=tuple(found.classes) if any(found.classes) else (),
        notices=tuple(notices),
        tars=len(found.shards),
    )


def _refuse_unpacked(data: str, shards: str) -> None:
    """Say what to do with a folder of photos, a Parquet file, or a CSV file."""
    path = Path(shards)
    if "://" in shards or not path.exists():
        return
    is_source = path.suffix.lower() in (".parquet", ".csv", ".tsv")
    if path.is_dir() and not any(path.glob("*.tar")) and not any(path.glob("*.json")):
        is_source = any(one.is_dir() or one.suffix.lower() == ".parquet" for one in path.iterdir())
    if is_source:
        raise RequestError(
            f"DATA: {data} holds no tars; `smoothcert pack {data} OUT` makes them, then name OUT instead of {data}"
        )


def _samples_of(url: str, store: Store) -> Iterator[Sample]:
    """The samples at the beginning of a tar."""
    data = store.read_range(url, 0, _BYTES_OF_A_TAR)
    samples: dict[str, dict[str, bytes]] = defaultdict(dict)
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                if not member.isfile() or is_system_member(member.name):
                    continue
                content = tar.extractfile(member)
                assert content is not None, "it is a file"
                folder, _, name = member.name.rpartition("/")
                key, _, suffix = name.partition(".")
                samples[f"{folder}/{key}"][suffix.lower()] = content.read()
    except tarfile.TarError as error:
        if not samples:
            raise RequestError(f"DATA: {url} is no tar ({error}); name tars") from None
    if len(data) == _BYTES_OF_A_TAR and len(samples) > 1:
        samples.popitem()  # the last one may be cut
    return iter(samples.values())


def _image_of(sample: Sample) -> str | None:
    """The suffix of the image of a sample."""
    return next((suffix for suffix in sample if suffix in IMAGE_SUFFIXES), None)


def _common_side(samples: Iterable[Sample]) -> int | None:
    """The side of squares of one size; None for other images. Damaged ones do not count: certify gives their reason."""
    sides = set[int]()
    for sample in samples:
        with suppress(Exception), Image.open(io.BytesIO(sample[_image_of(sample) or ""])) as image:
            sides.update(image.size)
    return sides.pop() if len(sides) == 1 else None


def labels_of(looked: Looked, classes: int, class_names: Sequence[str]) -> Labels:
    """Find the labels, and how they name the classes of the network.

    Args:
        looked: the samples.
        classes: of the network.
        class_names: of the network; empty if unknown.
    """
    others = [{key: value for key, value in one.items() if key not in IMAGE_SUFFIXES} for one in looked.samples]
    if (numbers := _first_that_reads(others, _whole_number)) is not None:
        return _numbered(*numbers, classes=classes, looked=looked, class_names=class_names)
    if (names := _first_that_reads(others, _text)) is not None:
        return _named(*names, classes=classes, class_names=class_names)
    members = sorted({f".{suffix}" for sample in others for suffix in sample})
    beside = f"; beside them lie {listed(members)}" if members else ""
    return Labels({"label": None}, f"No labels were found beside the images{beside}.")


def _first_that_reads(others: Sequence[Sample], read: Callable[[Any], Any]) -> tuple[str, list[Any]] | None:
    """The likeliest place of labels that nearly all samples can be read at, and what is there."""
    suffixes = {suffix for sample in others for suffix in sample}
    places = [member for member in _LABEL_MEMBERS if member in suffixes]
    places += [f"json:{name}" for name in _LABEL_FIELDS if "json" in suffixes]
    for place in places:
        values = [value for sample in others if (value := _value_at(sample, place, read)) is not None]
        if values and len(values) >= _NEARLY_ALL * len(others):
            return place, values
    return None


def _value_at(sample: Sample, place: str, read: Callable[[Any], Any]) -> Any:
    member, _, name = place.partition(":")
    try:
        return read(json.loads(sample[member])[name] if name else sample[member].decode("utf-8-sig"))
    except (KeyError, ValueError, TypeError, IndexError, RecursionError):
        return None


def _whole_number(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return value if type(value) is int else None


def _text(value: Any) -> str | None:
    return value.strip() if isinstance(value, str) and 0 < len(value.strip()) <= 200 else None


def _numbered(
    place: str, numbers: Sequence[int], *, classes: int, looked: Looked, class_names: Sequence[str]
) -> Labels:
    low, high = min(numbers), max(numbers)
    keys: dict[str, Any] = {"label": place}
    comment = f"{len(numbers):,} labels were read; they are numbers from {low} to {high}."
    if low >= 1 and high == classes:
        return Labels(keys | {"first_label": 1}, f"{comment} So they count from 1.")
    notice = None
    if low == 1 and not looked.packed_classes:
        notice = f"0 does not occur among {len(numbers):,} labels; if yours count from 1, set images.first_label: 1"
    if high >= classes:
        notice = (
            f"labels go up to {high}, but the network has {classes:,} classes (0 to {classes - 1}); set images.label: "
            "null to certify without labels, or pack the images again with --classes FILE, the network's classes"
        )
    elif looked.packed_classes and len(looked.packed_classes) != classes:
        notice = (
            f"the index of {looked.name} has {len(looked.packed_classes):,} classes, the network {classes:,}: labels "
            "are numbers of the index; pack the images again with --classes FILE, the network's classes in order"
        )
    elif looked.packed_classes and class_names and [*looked.packed_classes] != [*class_names]:
        notice = (
            f"labels are numbers of the classes {listed(looked.packed_classes, 3)} of {looked.name}'s index, but the "
            f"network's classes are {listed(class_names, 3)}; if they mean the same in another order, pack the images "
            "again with --classes FILE, the network's classes in order"
        )
    return Labels(keys, comment, notice)


def _named(place: str, names: Sequence[str], *, classes: int, class_names: Sequence[str]) -> Labels:
    keys: dict[str, Any] = {"label": place}
    comment = f"{len(names):,} labels were read; they are names such as {printable(names[0])}."
    for known, value in ((class_names, list(class_names)), (read_names(IMAGENET, ""), IMAGENET)):
        if len(known) == classes and sum(name in known for name in names) >= _NEARLY_ALL * len(names):
            return Labels(keys | {"label_names": value}, comment)
    return Labels(
        {"label": None},
        f"{comment} Nothing says which class of the network each name is, so they are not used.",
        f"labels are names (member .{place}, such as {printable(names[0])}), and nothing says their numbers; write the "
        f"names of the network's {classes:,} classes in order into a file, then set images.label: {place} and "
        "images.label_names: FILE",
    )
