"""`smoothcert pack`: lists a source, orders its images, writes the tars and, last, the index."""

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Images
from smoothcert.manifests.names import listed
from smoothcert.pipeline.console.bars import OnProgress
from smoothcert.pipeline.console.looks import number_of
from smoothcert.pipeline.pack.classes import NO_LABEL, Classes, number_classes
from smoothcert.pipeline.pack.listing import LeftOut, Listing, Reason
from smoothcert.pipeline.pack.output import LEFT_OUT, Output
from smoothcert.pipeline.pack.records import PackIndex, PackRequest, ShardEntry
from smoothcert.pipeline.pack.shards import Limits, write_tar
from smoothcert.pipeline.pack.sources import Choice, list_source
from smoothcert.workers.storage.disk import is_full, is_too_large, naming_a_full_disk, reason_of, remedy_for

NAMES = "%05d.tar"
_READ_BY_DEFAULT = Images.model_fields["image"].default
_NAMES = re.compile(r"(?!\.)[^/%]*%(?:0\d+)?d[^/%]*\.tar")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class Options(NamedTuple):
    """How to pack.

    Attributes:
        choice: what to take of the source.
        limits: of each tar.
        seed: of the order; None for the order of the source.
        names: of the tars, with one %d for the number.
        classes: names of the classes 0, 1, ...; None to take those of the source.
    """

    choice: Choice = Choice()
    limits: Limits = Limits(1000, None)
    seed: int | None = 0
    names: str = NAMES
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Packed:
    """The outcome: the index, what else to know, and whether all was there already."""

    index: PackIndex
    notices: tuple[str, ...]
    was_complete: bool


def pack(source: str, folder: Path, options: Options, hear: OnProgress) -> Packed:
    """Pack a source into tars, or go on where an earlier call was interrupted.

    Args:
        source: a folder, Parquet file or CSV file.
        folder: for the tars; it need not exist.
        options: how.
        hear: is told how many images are done.
    Raises:
        RequestError: the source cannot be packed, or the folder cannot be used.
        RunError: the disk is full, or an image cannot be read.
    """
    if not _NAMES.fullmatch(options.names):
        raise RequestError(f"--names {options.names}: must hold the number of a tar once, such as val-%05d.tar")
    output = Output(folder)
    listing = list_source(source, options.choice, output.copies, shuffled=options.seed is not None)
    classes = number_classes(listing, options.classes)
    with naming_a_full_disk(folder.absolute(), "name another folder"), _explaining(folder), output.locked():
        output.refuse_another(_request(source, options, listing, classes))
        index = output.index()
        was_complete = index is not None
        if index is None:
            _write_tars(output, options, listing, classes, hear)
            index = _end(output, listing, classes)
        output.clear()
    return Packed(index, classes.notices, was_complete)


@contextmanager
def _explaining(folder: Path) -> Iterator[None]:
    """Turn the errors of a folder that cannot be written to into one line."""
    try:
        yield
    except OSError as error:
        if is_full(error) or is_too_large(error):
            raise
        remedy = remedy_for(error, folder, "name another folder")
        raise RequestError(f"{error.filename or folder}: cannot be written ({reason_of(error)}); {remedy}") from None


def _request(source: str, options: Options, listing: Listing, classes: Classes) -> PackRequest:
    digest = hashlib.sha256(classes.numbers.tobytes())
    digest.update("\0".join(classes.names or ()).encode())
    return PackRequest(
        source=source,
        images=len(listing.names),
        fingerprint=listing.fingerprint,
        seed=options.seed,
        shard_images=options.limits.images,
        shard_bytes=options.limits.bytes,
        names=options.names,
        classes_sha256=digest.hexdigest(),
    )


def _write_tars(output: Output, options: Options, listing: Listing, classes: Classes, hear: OnProgress) -> None:
    """Write the tars that are not there yet."""
    total, finished = len(listing.names), output.finished()
    order: Sequence[int] = range(total)
    if options.seed is not None:
        order = np.random.default_rng(options.seed).permutation(total).tolist()
    number, position = len(finished), finished[-1].position if finished else 0
    while position < total:
        with output.new_file() as file:
            written = write_tar(file, listing, classes.numbers, order, position, options.limits, hear)
        name, size, sha256 = options.names % number, 0, ""
        if written.images:  # perhaps all that is left is unusable
            size, sha256 = output.publish(name)
        entry = ShardEntry(
            name=name,
            size=size,
            sha256=sha256,
            images=written.images,
            position=written.position,
            suffixes=tuple(sorted(written.suffixes)),
            of_class={str(label): count for label, count in sorted(written.of_class.items())},
            left_out=tuple((one.name, str(one.reason), one.detail) for one in written.left_out),
        )
        output.record(number, entry)
        number, position = number + 1, written.position


def _end(output: Output, listing: Listing, classes: Classes) -> PackIndex:
    """Write the index."""
    finished = output.finished()
    left_out = list(listing.left_out)
    for entry in finished:
        left_out += (LeftOut(name, Reason(reason), detail) for name, reason, detail in entry.left_out)
    of_class = Counter[int]()
    for entry in finished:
        of_class.update({int(label): count for label, count in entry.of_class.items()})
    unlabelled = of_class.pop(NO_LABEL, 0)
    num_classes = len(classes.names) if classes.names is not None else max(of_class, default=-1) + 1
    index = PackIndex(
        wids_version=1,
        packed=output.request(),
        images=sum(entry.images for entry in finished),
        unlabelled=unlabelled,
        classes=classes.names,
        images_of_class=tuple(of_class[number] for number in range(num_classes)),
        suffixes=tuple(sorted({suffix for entry in finished for suffix in entry.suffixes})),
        left_out=dict(sorted(Counter(str(one.reason) for one in left_out).items())),
        shardlist=tuple(
            {"url": entry.name, "nsamples": entry.images, "filesize": entry.size, "sha256": entry.sha256}
            for entry in finished
            if entry.images
        ),
    )
    if not index.images:
        output.clear()
        raise RequestError(f"{index.packed.source}: holds no image that can be packed: {_some(left_out)}")
    output.end(index, _as_csv(left_out))
    return index


def _some(left_out: Sequence[LeftOut]) -> str:
    return listed(f"{one.name} ({one.detail or one.reason})" for one in left_out)


def _as_csv(left_out: Sequence[LeftOut]) -> str:
    """A line for each thing that was left out; no text if there is none."""
    if not left_out:
        return ""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("name", "reason", "detail"))
    writer.writerows(left_out)
    return text.getvalue()


def lines_of(packed: Packed, folder: Path) -> Iterator[str]:
    """What `smoothcert pack` prints."""
    index = packed.index
    shards = number_of(len(index.shardlist), "tar")
    labelled = [count for count in index.images_of_class if count]
    of_classes = f" of {number_of(len(labelled), 'class')}" if len(labelled) == 1 else f" of {len(labelled):,} classes"
    state = " (all there already)" if packed.was_complete else ""
    without = "" if labelled else " without labels"
    yield f"{number_of(index.images, 'image')}{of_classes if labelled else without} in {shards}{state}: {folder}"
    if labelled and index.unlabelled:
        yield f"notice: {number_of(index.unlabelled, 'image')} without label"
    if index.left_out:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in index.left_out.items())
        yield f"notice: left out: {counts}; {folder / LEFT_OUT} names each"
    if others := sorted(set(index.suffixes) - set(_READ_BY_DEFAULT)):
        suffixes = ", ".join(index.suffixes)
        yield f"notice: some images are {', '.join(others)}; to certify them, a job needs images.image: [{suffixes}]"
    yield from (f"notice: {notice}" for notice in packed.notices)
    yield f"a job reads them with images: {{shards: {folder}{'' if labelled else ', label: null'}}}"


def bytes_of(text: str) -> int:
    """A size such as 500M or 1.5GB, in bytes.

    Raises:
        RequestError: the text is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", text.strip().lower())
    if match is None or not (size := int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2]])):
        raise RequestError(f"--shard-bytes {text}: is no size; write one such as 500M or 2GiB")
    return size
