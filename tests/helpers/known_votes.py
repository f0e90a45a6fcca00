"""Runs of known votes, and an answer to every question about them, counted by hand."""

import json
from itertools import product
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from smoothcert.manifests.identity import identity_of, run_id_of
from smoothcert.manifests.job import Job
from smoothcert.manifests.shards import Shard
from smoothcert.pipeline.cli import app
from smoothcert.workers.storage.store import sha256_of
from tests.helpers.rows import file_of

CROP, CLASSES, SIZE = 12, 4, 3
JOB = {
    "name": "known votes",
    "images": {"shards": "unused"},
    "model": {"architecture": "vit_tiny_patch16_224", "checkpoint": "unused", "classes": CLASSES},
    "preprocess": {"resize": None, "crop": CROP},
    "ablation": {"kind": "column", "size": SIZE},
    "patches": [1, 2],
    "output": "unused",
}


def known_votes(seed: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """[images, 12] votes of which one class often leads, and their margins."""
    random = np.random.default_rng(seed)
    leader = random.integers(0, CLASSES, (images, 1))
    votes = np.where(
        random.random((images, CROP)) < random.uniform(0.6, 1, (images, 1)),
        leader,
        random.integers(0, CLASSES, (images, CROP)),
    )
    return votes, random.random((images, CROP)).astype(np.float32)


def write_run(folder: Path, *, labelled: bool = True, shards: int = 2, published: int = 2, **job: object) -> Path:
    """A run of two shards with known votes; the last image of each has none."""
    job = JOB | {"images": {"shards": "unused", "label": "cls" if labelled else None}} | job
    tars = [Shard(f"{number}.tar", f"{number}.tar", 1, "", None) for number in range(shards)]
    identity = identity_of(Job.model_validate(job), tars, checkpoint_sha256="0" * 64, checkpoint_key=None, limit=None)
    run = folder / run_id_of(identity)
    (run / "votes").mkdir(parents=True)
    record = {
        "run_id": run.name,
        "name": "known votes",
        "partial": False,
        "identity": identity,
        "job": job,
        "checkpoint": {"sha256": "0" * 64, "key": None},
        "shards": [vars(tar) | {"limit": None} for tar in tars],
    }
    (run / "run.json").write_text(json.dumps(record))
    for number in range(published):
        votes, margins = known_votes(number, 20)
        rows = [
            {
                "key": f"{number}-{index}",
                "shard": f"{number}.tar",
                "index": index,
                "image_offset": 0,
                "image_bytes": 1,
                "sha256": bytes(32),
                "status": "ok",
                "label": index % CLASSES if labelled else None,
            }
            | ({"votes": votes[index], "margins": margins[index]} if index < 19 else {"status": "decode_error"})
            for index in range(20)
        ]
        metadata = {"run_id": run.name, "shard": {"name": f"{number}.tar"}}
        data = file_of(rows, CROP, metadata)
        (run / "votes" / f"{number:05d}-{number}.parquet").write_bytes(data)
    if published == shards:
        finish(run)
    return run


def finish(run: Path) -> None:
    """Write _SUCCESS."""
    files = {f"votes/{file.name}": sha256_of(file) for file in (run / "votes").iterdir()}
    (run / "_SUCCESS").write_text(json.dumps({"files": files, "rows": 20 * len(files)}))


def ask(run: Path, *options: str) -> list[dict]:
    """The JSON of a query."""
    result = CliRunner().invoke(app, ["query", str(run), "--json", *options])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def holds(
    votes: list[int],
    places: list[int],
    width: int,
    fragile: set[int],
    stride: int,
    top: int = 1,
    subject: int | None = None,
) -> bool:
    """Whether a class stays among the first K after any attack of patches at these columns, counted pixel by pixel.

    By default it is the prediction, against every rival.
    """
    offsets = range(0, CROP, stride)
    hit = {
        place
        for place, offset in enumerate(offsets)
        if {(offset + step) % CROP for step in range(SIZE)} & {left + x for left in places for x in range(width)}
    } | fragile
    counts = [votes.count(name) for name in range(CLASSES)]
    subject = counts.index(max(counts)) if subject is None else subject
    kept = [[vote for place, vote in enumerate(votes) if place not in hit].count(name) for name in range(CLASSES)]
    rivals = [name for name in range(CLASSES) if name != subject]

    def overtaken(split: tuple[int, ...]) -> bool:
        after = {name: kept[name] + more for name, more in zip(rivals, split, strict=True)}
        return sum((votes, -name) > (kept[subject], -subject) for name, votes in after.items()) >= top

    return not any(
        overtaken(split) for split in product(range(len(hit) + 1), repeat=len(rivals)) if sum(split) == len(hit)
    )
