"""`smoothcert verify --replay`: ask the tars and the checkpoint again whether a run's rows are true.

Random images that have votes are read again from the place in their tar that the row tells, decoded and voted on.
The tars they lie in are read whole: every row of those shards must have the key, place, hash and label of a sample.

Two machines do not round alike. A vote is compared where its stored margin is above the tolerance of the number
format; the others are numerically fragile, and a notice counts those that differ. Margins must agree within the
tolerance everywhere, so a clear vote cannot pass as a fragile one.

Not covered: tars of which no image was chosen; why a row has no votes.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from smoothcert.manifests.errors import RequestError, ShardError
from smoothcert.manifests.job import Job
from smoothcert.pipeline.verify.verify import Findings, Heard, Row, Run, line_of
from smoothcert.workers.storage.store import AnyStore, Store, sha256_of
from smoothcert.workers.tars.images import decode
from smoothcert.workers.tars.shard_reader import read_samples
from smoothcert.workers.votes.smoothed import Smoothed
from smoothcert.workers.votes.voters import load_voter

# Of margins. Logits up to 5, after six blocks, lie within 0.004 (float16) and 0.04 (bfloat16) of float32's. A margin
# takes two of them, either machine may be off, and deeper networks more so. float32 margins of two kinds of devices
# have been seen to lie within 2e-5.
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 2e-1}

_IMAGES_AT_ONCE = 16
_IMAGES_AT_ONCE_ON_CPU = 4  # some seconds of a large network, so that progress shows
_OF_THE_TAR = ["key", "image_offset", "image_bytes", "sha256", "label"]
_OF_THE_MODEL = ["width", "height", "votes", "margins", "clean_prediction", "clean_margin"]
_NEEDED = ["image_offset", "image_bytes", "votes", "margins"]  # where one is null, verify.py has said so
_ANSWERS = (("votes", "margins"), ("clean_prediction", "clean_margin"))


class Replayed(NamedTuple):
    """What is wrong, and what else is worth knowing; a line each."""

    problems: list[str]
    notices: list[str]


def replay(run: Run, files: Sequence[str], images: int, seed: int, hear: Heard = lambda *_: None) -> Replayed:
    """Vote on random images again.

    Args:
        run: the run.
        files: names of its files of votes that can be read.
        images: how many to choose among those with votes.
        seed: of the choice.
        hear: is told how far the replay has come.
    Raises:
        RequestError: a tar or the checkpoint is missing, or the checkpoint is another.
    """
    job = _job_of(run)
    chosen = _choose(run, files, images, seed)
    store = AnyStore(job.storage)
    for url in (*(run.shards[name]["url"] for name in chosen), job.model.checkpoint):
        if store.find(url) is None:
            raise RequestError(f"{url} is gone, so votes cannot be replayed; restore it, or leave --replay out")
    total = sum(map(len, chosen.values()))
    model = _load(run, job, store)
    problems: list[str] = []
    seen: Counter[str] = Counter()

    def tell() -> None:
        hear("images replayed", seen["images"], total)

    for name, positions in chosen.items():
        tell()
        with store.local(run.shards[name]["url"]) as tar:
            if foreign := _foreign(run, name, tar):
                problems.append(f"{name}: {foreign}")
                continue
            rows = zip(positions, _read(run, name, [*_OF_THE_TAR, *_OF_THE_MODEL], positions), strict=True)
            whole = {position: row for position, row in rows if all(row[column] is not None for column in _NEEDED)}
            again = _vote_problems(whole, tar, model, job, seen, tell)
            problems += (f"{name} {problem}" for problem in [*_tar_problems(run, name, tar, job), *again])
    notice = (
        f"replayed {seen['images']} images chosen with seed {seed}: {seen['fragile']} of {seen['votes']} votes are "
        f"numerically fragile (margin at most {TOLERANCE[job.model.dtype]:g}), {seen['differ']} of them differ"
    )
    return Replayed(problems, [notice])


def _job_of(run: Run) -> Job:
    try:
        return Job.model_validate(run.job)
    except ValidationError as error:
        raise RequestError(f"{run.url}/run.json: {error.error_count()} mistakes in its job; restore it") from None


def _choose(run: Run, files: Sequence[str], images: int, seed: int) -> dict[str, list[int]]:
    """Positions of rows with votes, by file."""
    voted = [
        [position for position, row in enumerate(_read(run, name, ["prediction"])) if row["prediction"] is not None]
        for name in files
    ]
    total = sum(map(len, voted))
    picks = np.sort(np.random.default_rng(seed).choice(total, min(images, total), replace=False))
    ends = np.cumsum([len(positions) for positions in voted])
    chosen: dict[str, list[int]] = {}
    for pick in picks.tolist():
        file = int(np.searchsorted(ends, pick, side="right"))
        chosen.setdefault(files[file], []).append(voted[file][pick - ends[file]])
    return chosen


def _read(run: Run, name: str, columns: list[str], positions: Sequence[int] | None = None) -> list[Row]:
    with pq.ParquetFile(io.BytesIO(run.store.read(f"{run.url}/{name}"))) as file:
        table = file.read(columns)
    rows: list[Row] = (table if positions is None else table.take(positions)).to_pylist()
    return rows


def _load(run: Run, job: Job, store: Store) -> Smoothed:
    """The job's model, as workers/certifier.py loads it."""
    recorded, device = run.record["checkpoint"], torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with store.local(job.model.checkpoint) as checkpoint:
        if sha256_of(checkpoint) != recorded["sha256"]:
            raise RequestError(f"{job.model.checkpoint} is not the checkpoint of the run (another SHA-256); restore it")
        return load_voter(job, checkpoint, recorded["key"], device)


def _foreign(run: Run, name: str, tar: Path) -> str | None:
    """Whether a tar is another than the one that was voted on."""
    schema = pq.read_schema(io.BytesIO(run.store.read(f"{run.url}/{name}")))
    recorded = json.loads(schema.metadata[b"smoothcert"]).get("shard_sha256")
    sha256 = sha256_of(tar)
    return None if sha256 == recorded else f"is of a tar with SHA-256 {recorded}, {tar} has {sha256}"


def _tar_problems(run: Run, name: str, tar: Path, job: Job) -> Iterator[str]:
    """Every row of a file against the sample of its key."""
    rows = {row["key"]: (position, row) for position, row in enumerate(_read(run, name, _OF_THE_TAR))}
    try:
        for sample in read_samples(tar, job.images, classes=job.model.classes, limit=run.shards[name]["limit"]):
            if sample.key not in rows:
                yield f"lacks key {sample.key!r} of the tar"
                continue
            position, row = rows.pop(sample.key)
            found = (sample.image_offset, len(sample.image), hashlib.sha256(sample.image).digest(), sample.label)
            for column, value in zip(_OF_THE_TAR[1:], found, strict=True):
                if row[column] != value:
                    yield line_of(position, row, column, f"is {_show(row[column])}, in the tar {_show(value)}")
    except ShardError as error:
        yield f"cannot be compared with its tar, which {error}"
        return
    for position, row in rows.values():
        yield line_of(position, row, "key", "is not in the tar")


def _show(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value


def _vote_problems(
    rows: dict[int, Row], tar: Path, model: Smoothed, job: Job, seen: Counter[str], tell: Callable[[], None]
) -> Iterator[str]:
    """The chosen rows of a file, by position, against votes of today; `tell` is called after each few of them."""
    positions, at_once = list(rows), _IMAGES_AT_ONCE if torch.cuda.is_available() else _IMAGES_AT_ONCE_ON_CPU
    for start in range(0, len(positions), at_once):
        pixels: dict[int, NDArray[np.uint8]] = {}
        for position in positions[start : start + at_once]:
            for column, wrong in _decode_again(rows[position], tar, job, pixels, position):
                yield line_of(position, rows[position], column, wrong)
        if not pixels:
            continue
        seen["images"] += len(pixels)
        images = torch.from_numpy(np.stack(list(pixels.values())))
        answers = [model.votes(images), *([model.clean_votes(images)] if job.clean else [])]
        for columns, answer in zip(_ANSWERS, answers, strict=False):
            for position, classes, margins in zip(pixels, answer.classes.cpu(), answer.margins.cpu(), strict=True):
                again = (classes.numpy(), margins.numpy())
                for column, wrong in _compare(rows[position], columns, again, TOLERANCE[job.model.dtype], seen):
                    yield line_of(position, rows[position], column, wrong)
        tell()


def _decode_again(row: Row, tar: Path, job: Job, pixels: dict[int, NDArray[np.uint8]], position: int) -> Findings:
    """Put the pixels of a row's image into `pixels`, or say why not."""
    with tar.open("rb") as file:
        file.seek(max(row["image_offset"], 0))
        image = file.read(max(row["image_bytes"], 0))
    if hashlib.sha256(image).digest() != row["sha256"]:
        yield "sha256", "is not that of the bytes at image_offset"
        return
    decoded = decode(image, job.preprocess)
    if (decoded.width, decoded.height) != (row["width"], row["height"]):
        yield (
            "width",
            f"and height are {row['width']} x {row['height']}, the image has {decoded.width} x {decoded.height}",
        )
    if decoded.pixels is None:
        yield "status", f"goes with votes, but the image gives {decoded.error}"
    else:
        pixels[position] = decoded.pixels


def _compare(
    row: Row,
    columns: tuple[str, str],
    again: tuple[NDArray[np.int64], NDArray[np.float32]],
    tolerance: float,
    seen: Counter[str],
) -> Findings:
    """Stored classes and margins (one, or a list of A) against those of today."""
    classes, margins = (np.array(row[column], np.float64).reshape(-1) for column in columns)  # null becomes nan
    fragile, differs = margins <= tolerance, classes != again[0]
    lost = differs & ~fragile
    apart = ~(np.abs(margins - again[1]) <= tolerance) & ~lost
    for column, wrong, stored, found in ((columns[0], lost, classes, again[0]), (columns[1], apart, margins, again[1])):
        if where := np.flatnonzero(wrong).tolist():
            yield column, f"{where} are {stored[where].tolist()}, voted on again {found[where].tolist()}"
    seen.update(votes=len(classes), fragile=int(fragile.sum()), differ=int((differs & fragile).sum()))
