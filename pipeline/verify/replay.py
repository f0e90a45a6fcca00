"""`smoothcert verify --replay`: compare a run's rows with its tars, and its votes with new votes.

Random images that have votes are read again from the place in their tar that the row names, decoded and voted on. The
tars they lie in are read whole: every row of those shards must have the key, place, hash and label of a sample.
sources.py finds tars and checkpoint, evidence.py says what the replay proves.

Two machines do not round alike. A vote is compared if its stored margin is above the tolerance of the number format.
The others are numerically fragile, and a notice counts those that differ. Margins must agree within the tolerance
everywhere, so a clear vote cannot pass as a fragile one.

With an early exit some votes are not cast. Those that were cast both times are compared. A forged uniform row is found:
the vote for which the row was given up is among them.

Unlike the rest of the room, this file uses the engine that made the votes. Not covered: tars of which no image was
chosen; why a row has no votes.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from smoothcert.manifests.errors import RequestError, ShardError
from smoothcert.manifests.job import Job, refuse_code
from smoothcert.pipeline.console.bars import OnProgress
from smoothcert.pipeline.verify.entries import RUN_JSON, check_entries
from smoothcert.pipeline.verify.evidence import Evidence, evidence_of
from smoothcert.pipeline.verify.files import FileMetadata
from smoothcert.pipeline.verify.findings import Finding
from smoothcert.pipeline.verify.record import CheckedRun
from smoothcert.pipeline.verify.recount_masks import ABSENT
from smoothcert.pipeline.verify.rows import Row, Wrong, read_rows
from smoothcert.pipeline.verify.sources import local_tar, recorded_tars, require_checkpoint_of, tars_below
from smoothcert.workers.storage.store import AnyStore, Store, sha256_of
from smoothcert.workers.tars.card_decoder import card_for, decode_one
from smoothcert.workers.tars.shard_reader import read_samples
from smoothcert.workers.votes.smoothed import Smoothed
from smoothcert.workers.votes.voters import load_voter

# Tolerances of margins. Logits up to 5, after six blocks, differ from float32's by up to 0.004 (float16) and 0.04
# (bfloat16). A margin is a difference of two logits, both machines may deviate, and deeper networks deviate more.
# In int8 a number that is rounded otherwise may become the next byte.
# float32 margins of two kinds of devices were seen to differ by up to 2e-5.
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 2e-1, "int8": 4e-1}

IMAGES_PER_BATCH = 16
IMAGES_PER_BATCH_ON_CPU = 4  # some seconds with a large network, so that progress shows
NEEDED = ("image_offset", "image_bytes", "votes", "margins")
"""Columns that a replay needs. rows.py reports a null in them."""


class Replayed(NamedTuple):
    """What is wrong, what else is worth knowing, a line each, and what it proves: None if the job cannot be read."""

    findings: list[Finding]
    notices: list[str]
    evidence: Evidence | None


@dataclass
class _Progress:
    """How far the replay has come. `fragile` counts fragile votes, and `differ` those of them that differ now."""

    hear: OnProgress
    total: int
    images: int = 0
    votes: int = 0
    fragile: int = 0
    differ: int = 0

    def show(self) -> None:
        self.hear("images replayed", self.images, self.total)


def replay(
    run: CheckedRun,
    voted: Mapping[str, Sequence[int]],
    images: int,
    seed: int,
    hear: OnProgress = lambda *_: None,
    *,
    images_folder: str | None = None,
    checkpoint: str | None = None,
    allow_code: bool = False,
) -> Replayed:
    """Vote on random images again.

    Args:
        run: the run.
        voted: positions of the rows with a prediction, by the names of the files that can be read.
        images: how many of them to choose.
        seed: of the choice.
        hear: takes the progress of the replay.
        images_folder: where to look for the tars; None: where run.json says.
        checkpoint: the file with the weights; None: the one that run.json names.
        allow_code: whether code that run.json names may run.
    Raises:
        RequestError: a tar or the checkpoint is missing, or the checkpoint has changed; or the job's decoder needs a
            GPU, and there is none.
    """
    job = _job_of(run)
    if job is None:
        text = "cannot be used to replay votes; restore it, or leave --replay out"
        return Replayed([Finding(RUN_JSON, text)], [], None)
    refuse_code(job.model, allow_code=allow_code)
    card_for(job.preprocess)  # refused before tars are copied
    chosen = _choose(voted, images, seed)
    recorded = AnyStore(job.storage)
    store = recorded if images_folder is None else run.store
    tars = recorded_tars(run, chosen, store) if images_folder is None else tars_below(run, chosen, images_folder, store)
    progress = _Progress(hear, sum(map(len, chosen.values())))
    model = _load(run, job, checkpoint, recorded if checkpoint is None else run.store, allow_code=allow_code)
    findings: list[Finding] = []
    for name, positions in chosen.items():
        progress.show()
        findings += _replay_file(run, name, positions, tars[name], store, job, model, progress)
    notice = (
        f"replayed {progress.images} images chosen with seed {seed}: {progress.fragile} of {progress.votes} votes are "
        f"numerically fragile (margin at most {TOLERANCE[job.model.dtype]:g}), {progress.differ} of them differ"
    )
    evidence = evidence_of(
        images=sum(map(len, voted.values())), chosen=progress.total, replayed=progress.images, seed=seed
    )
    return Replayed(findings, [notice], evidence)


def _job_of(run: CheckedRun) -> Job | None:
    """The job; None if run.json has mistakes, perhaps in the places of tars and checkpoint."""
    if any(check_entries(run.content)):
        return None
    try:
        return Job.model_validate(run.content["job"])
    except ValidationError:
        return None


def _choose(voted: Mapping[str, Sequence[int]], images: int, seed: int) -> dict[str, list[int]]:
    """Positions of the chosen rows, by file."""
    rows = [(name, position) for name, positions in voted.items() for position in positions]
    picks = np.sort(np.random.default_rng(seed).choice(len(rows), min(images, len(rows)), replace=False))
    chosen: dict[str, list[int]] = {}
    for name, position in (rows[pick] for pick in picks):
        chosen.setdefault(name, []).append(position)
    return chosen


def _load(run: CheckedRun, job: Job, given: str | None, store: Store, *, allow_code: bool) -> Smoothed:
    """The job's model, as workers/certifier.py loads it, from the file that is given or that run.json names."""
    recorded, device = run.record.checkpoint, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    url = job.model.checkpoint if given is None else given
    if given is not None:
        require_checkpoint_of(run, given, store)
    elif store.find(url) is None:
        remedy = "restore it, name the file that holds it now (--checkpoint), or leave --replay out"
        raise RequestError(f"{url} is gone, so votes cannot be replayed; {remedy}")
    with store.local(url) as checkpoint:
        if (found := sha256_of(checkpoint)) != recorded.sha256:
            raise RequestError(
                f"{url} is not the checkpoint of the run: it has SHA-256 {found}, the run {recorded.sha256}; "
                "restore it, or name the right file (--checkpoint)"
            )
        return load_voter(job, checkpoint, recorded.key, device, allow_code=allow_code)


def _replay_file(
    run: CheckedRun,
    name: str,
    positions: Sequence[int],
    tars: Sequence[str],
    store: Store,
    job: Job,
    model: Smoothed,
    progress: _Progress,
) -> Iterator[Finding]:
    """Read one file once; compare all its rows with the tar, and the chosen ones with new votes.

    `tars` are URLs of files that may be that tar.
    """
    with pq.ParquetFile(pa.BufferReader(run.store.read(f"{run.url}/{name}"))) as file:
        table = file.read(use_threads=False)
    recorded = FileMetadata.of(table.schema).shard_sha256
    with local_tar(tars, recorded, store) as tar:
        if tar.sha256 != recorded:
            yield Finding(name, f"is of a tar with SHA-256 {recorded}, {tar.path} has {tar.sha256}")
            return
        rows = [row for batch in table.to_batches() for row in read_rows(batch)]
        yield from _compare_with_tar(name, rows, tar.path, job, run.shards[name].limit)
        chosen = {position: rows[position] for position in positions}
        complete = {
            position: row
            for position, row in chosen.items()
            if all(getattr(row, column) is not None for column in NEEDED)
        }
        for position, column, text in _compare_with_model(complete, tar.path, model, job, progress):
            yield Finding(name, text, row=position, key=rows[position].key, column=column)


def _compare_with_tar(name: str, rows: Sequence[Row], tar: Path, job: Job, limit: int | None) -> Iterator[Finding]:
    """Compare every row of a file with the sample of its key."""
    by_key = {row.key: (position, row) for position, row in enumerate(rows)}
    try:
        for sample in read_samples(tar, job.images, classes=job.model.classes, limit=limit):
            if sample.key not in by_key:
                yield Finding(name, "", f"lacks key {sample.key!r} of the tar")
                continue
            position, row = by_key.pop(sample.key)
            for column, stored, found in (
                ("image_offset", row.image_offset, sample.image_offset),
                ("image_bytes", row.image_bytes, len(sample.image)),
                ("sha256", row.sha256, hashlib.sha256(sample.image).digest()),
                ("label", row.label, sample.label),
            ):
                if stored != found:
                    text = f"is {_readable(stored)}, in the tar {_readable(found)}"
                    yield Finding(name, text, row=position, key=row.key, column=column)
    except ShardError as error:
        yield Finding(name, "", f"cannot be compared with its tar, which {error}")
        return
    for position, row in by_key.values():
        yield Finding(name, "is not in the tar", row=position, key=row.key, column="key")


def _readable(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value


def _compare_with_model(
    rows: Mapping[int, Row], tar: Path, model: Smoothed, job: Job, progress: _Progress
) -> Iterator[tuple[int, str, str]]:
    """Compare rows, by position, with new votes; yield position, column, and what is wrong there."""
    positions, tolerance = list(rows), TOLERANCE[job.model.dtype]
    step = IMAGES_PER_BATCH if torch.cuda.is_available() else IMAGES_PER_BATCH_ON_CPU
    for start in range(0, len(positions), step):
        pixels: dict[int, NDArray[np.uint8]] = {}
        for position in positions[start : start + step]:
            for column, wrong in _decode_again(rows[position], tar, job, pixels, position):
                yield position, column, wrong
        if not pixels:
            continue
        progress.images += len(pixels)
        images = torch.from_numpy(np.stack(list(pixels.values())))
        answers = {("votes", "margins"): model.votes(images)}
        if job.clean:
            answers["clean_prediction", "clean_margin"] = model.clean_votes(images)
        for columns, answer in answers.items():
            for position, classes, margins in zip(pixels, answer.classes.cpu(), answer.margins.cpu(), strict=True):
                again = (classes.numpy(), margins.numpy())
                for column, wrong in _compare_votes(rows[position], columns, again, tolerance, progress):
                    yield position, column, wrong
        progress.show()


def _decode_again(row: Row, tar: Path, job: Job, pixels: dict[int, NDArray[np.uint8]], position: int) -> Wrong:
    """Put the pixels of a row's image into `pixels`, or yield why not."""
    with tar.open("rb") as file:
        file.seek(min(max(row.image_offset, 0), tar.stat().st_size))  # the system refuses places far beyond
        image = file.read(max(row.image_bytes, 0))
    if hashlib.sha256(image).digest() != row.sha256:
        yield "sha256", "is not that of the bytes at image_offset"
        return
    decoded = decode_one(image, job.preprocess)
    if (decoded.width, decoded.height) != (row.width, row.height):
        yield "width", f"and height are {row.width} x {row.height}, the image has {decoded.width} x {decoded.height}"
    if decoded.pixels is None:
        yield "status", f"goes with votes, but the image gives {decoded.error}"
    else:
        pixels[position] = decoded.pixels


def _compare_votes(
    row: Row,
    columns: tuple[str, str],
    again: tuple[NDArray[np.int64], NDArray[np.float32]],
    tolerance: float,
    progress: _Progress,
) -> Wrong:
    """Compare stored classes and margins (one, or a list of A) with new ones, where votes were cast both times."""
    classes, margins = (np.array(getattr(row, name), np.float64).reshape(-1) for name in columns)  # null becomes nan
    cast = (classes != ABSENT) & (again[0] != ABSENT)
    fragile, differs = cast & (margins <= tolerance), cast & (classes != again[0])
    lost = differs & ~fragile
    apart = cast & ~(np.abs(margins - again[1]) <= tolerance) & ~lost
    for column, wrong, stored, found in ((columns[0], lost, classes, again[0]), (columns[1], apart, margins, again[1])):
        if where := np.flatnonzero(wrong).tolist():
            yield column, f"{where} are {stored[where].tolist()}, voted on again {found[where].tolist()}"
    progress.votes += int(cast.sum())
    progress.fragile += int(fragile.sum())
    progress.differ += int((differs & fragile).sum())
