"""Runs of made-up votes, for benchmarks that need no network.

Votes are as networks cast them. Each image has a leading class, whose share of the votes is uniform from 0 to 1. Most
of its other votes are for a few rivals, the rest for any class. Columns of 19 of 224 pixels at stride 1 give 224 votes.

`make_runs` makes five runs. Each of the first files lies under several names, so that the large runs are made in
minutes.

    base, new        the votes above; in new, a twentieth of the images has other votes in a fifth of the ablations
    sure, flipped    nine votes in ten are for the label; in flipped all are for the next class, so every prediction
                     changes and every certificate is lost
    blocks           2,000 rows of 50,176 votes: blocks of 75 x 75 pixels at stride 1
"""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from smoothcert.manifests.identity import VOTES_VERSION, identity_of, run_id_of
from smoothcert.manifests.job import Job
from smoothcert.manifests.shards import Shard
from smoothcert.workers.ablations.kinds import Ablations, ablations_of
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.certificates.majority import certify
from smoothcert.workers.rows import with_certificates
from smoothcert.workers.runs.layout import RUN_JSON, SUCCESS, VOTES, votes_file
from smoothcert.workers.runs.records import CheckpointRecord, FileMetadata, RunRecord, ShardFileRecord, ShardRecord
from smoothcert.workers.runs.run import open_run
from smoothcert.workers.runs.votes_table import METADATA_KEY, Row, encode, matrix_of
from smoothcert.workers.storage.store import sha256_of

IMAGENET_ROWS = 1_282_000
ROWS_PER_FILE = 10_000
CLASSES, SIDE, RIVALS, RIVAL_SHARE = 1000, 224, 8, 0.9
MEMBER_BYTES = 2048  # of an image in its tar, with its header and its padding
JOB: dict[str, Any] = {
    "name": "made-up votes",
    "images": {"shards": "unused"},
    "model": {"architecture": "unused", "checkpoint": "unused", "classes": CLASSES},
    "ablation": {"kind": "column", "size": 19},
    "output": "unused",
}
BLOCKS, BLOCK_ROWS, BLOCK_ROWS_PER_FILE = {"kind": "block", "size": 75}, 2000, 500
DISTINCT_FILES = 8
CHANGED_IMAGES, CHANGED_VOTES, OTHER_VOTES = 0.05, 0.2, 0.1

Votes = NDArray[np.uint16]


def make_runs(folder: Path, rows: int) -> None:
    """The runs that the head of this file names, those that the folder does not hold."""
    few, random = folder / "few", np.random.default_rng(0)
    if not few.exists():
        write_run(few, min(rows, DISTINCT_FILES * ROWS_PER_FILE))
    if not (folder / "blocks").exists():
        write_run(folder / "blocks", BLOCK_ROWS, ablation=BLOCKS, rows_per_file=BLOCK_ROWS_PER_FILE)

    def some_changed(votes: Votes, _: Votes) -> Votes:
        images = random.random((len(votes), 1)) < CHANGED_IMAGES
        return _with_others(votes, images & (random.random(votes.shape) < CHANGED_VOTES), random)

    def sure(votes: Votes, labels: Votes) -> Votes:
        own = np.broadcast_to(labels[:, None], votes.shape)
        return _with_others(own, random.random(votes.shape) < OTHER_VOTES, random)

    kinds: dict[str, tuple[str, Callable[[Votes, Votes], Votes]]] = {
        "base": ("few", lambda votes, _: votes),
        "new": ("few", some_changed),
        "sure": ("few", sure),
        "flipped": ("few sure", lambda votes, _: (votes + 1) % CLASSES),
    }
    for number, (name, (source, votes_of)) in enumerate(kinds.items()):
        if not (folder / name / SUCCESS).exists():
            _revote(folder / source, folder / f"few {name}", votes_of)
            _repeat(folder / f"few {name}", folder / name, rows, f"{number:064d}")


def make_run(run: Path, rows: int, *, ablation: Mapping[str, Any], rows_per_file: int, run_length: int) -> None:
    """One run, as `write_run` makes it; of a large one, each of the first files lies under several names.

    Args:
        run: its folder, which must not exist.
        rows: how many.
        ablation, rows_per_file, run_length: as for `write_run`.
    """
    distinct = DISTINCT_FILES * ROWS_PER_FILE
    if rows <= distinct:
        write_run(run, rows, ablation=ablation, rows_per_file=rows_per_file, run_length=run_length)
        return
    few = run.with_name(f"{run.name} few")
    write_run(few, distinct, ablation=ablation, rows_per_file=rows_per_file, run_length=run_length)
    _repeat(few, run, rows, "1" * 64, rows_per_file)
    shutil.rmtree(few)


def _with_others(votes: Votes, which: NDArray[np.bool_], random: np.random.Generator) -> Votes:
    votes = votes.copy()
    votes[which] = random.integers(0, CLASSES, int(which.sum()), dtype=np.uint16)
    return votes


def _revote(run: Path, out: Path, votes_of: Callable[[Votes, Votes], Votes]) -> None:
    """The files of a run with other votes: those that a function makes of the votes and the labels."""
    ablations = ablations_of(open_run(str(run)).job.ablation, SIDE, SIDE)
    shutil.copytree(run, out, dirs_exist_ok=True)
    for file in sorted((out / VOTES).iterdir()):
        rows = pq.read_table(file)
        votes = votes_of(matrix_of(rows["votes"]), rows["label"].to_numpy().astype(np.uint16))
        certificates = vars(certify(votes, ablations, classes=CLASSES))
        columns = {name: pa.array(values.astype(np.int32)) for name, values in certificates.items()}
        columns["votes"] = pa.FixedSizeListArray.from_arrays(pa.array(votes.ravel()), SIDE)
        for name, column in columns.items():
            place = rows.schema.get_field_index(name)
            rows = rows.set_column(place, rows.schema.field(place), column)
        pq.write_table(rows, file, compression="zstd", write_page_checksum=True)


def _repeat(few: Path, run: Path, rows: int, weights: str, rows_per_file: int = ROWS_PER_FILE) -> None:
    """A finished run of many shards whose files are those of a few, in turn, with the name of their own shard."""
    record, job = open_run(str(few)).record, open_run(str(few)).job
    sources = sorted((few / VOTES).iterdir())
    first = record.shards[0]
    shards = tuple(
        first.model_copy(update={"name": f"{number:05d}.tar", "url": f"{number:05d}.tar"})
        for number in range(-(-rows // rows_per_file))
    )
    tars = [shard.shard for shard in shards]
    identity = identity_of(job, tars, checkpoint_sha256=weights, checkpoint_key=None, limit=None)
    checkpoint = record.checkpoint.model_copy(update={"sha256": weights})
    changes = {"run_id": run_id_of(identity), "identity": identity, "shards": shards, "checkpoint": checkpoint}
    (run / VOTES).mkdir(parents=True, exist_ok=True)
    (run / RUN_JSON).write_bytes(record.model_copy(update=changes).encode())
    files, left = {}, rows
    for number, shard in enumerate(shards):
        table = pq.read_table(sources[number % len(sources)])[: min(left, rows_per_file)]
        left -= len(table)
        place = table.schema.get_field_index("shard")
        names = pa.array([shard.name] * len(table)).dictionary_encode()
        table = table.set_column(place, table.schema.field(place), names)
        described = {"run_id": changes["run_id"], "shard": {"name": shard.name}}
        metadata = json.loads(table.schema.metadata[METADATA_KEY]) | described
        file = run / votes_file(number, shard.name)
        table = table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata)})
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)
        files[f"{VOTES}/{file.name}"] = sha256_of(file)
    (run / SUCCESS).write_text(json.dumps({"files": files, "rows": rows}))


def write_run(
    run: Path,
    rows: int,
    *,
    ablation: Mapping[str, Any] = JOB["ablation"],
    rows_per_file: int = ROWS_PER_FILE,
    run_length: int = 1,
    distinct_files: int | None = None,
) -> None:
    """An unfinished run whose files are all there.

    Args:
        run: its folder.
        rows, rows_per_file: how many.
        ablation: of the job.
        run_length: how many neighbouring ablations cast the same vote on average.
        distinct_files: files after so many repeat the bytes of the first ones; None: all are distinct.
    """
    job = Job.model_validate(JOB | {"ablation": ablation})
    counts = [min(rows_per_file, rows - start) for start in range(0, rows, rows_per_file)]
    size = MEMBER_BYTES * (rows_per_file + 1)
    shards = [Shard(f"{index:05d}.tar", f"{index:05d}.tar", size, "made up", None) for index in range(len(counts))]
    identity = identity_of(job, shards, checkpoint_sha256="0" * 64, checkpoint_key=None, limit=None)
    record = RunRecord(
        run_id=run_id_of(identity),
        name=job.name,
        partial=False,
        identity=identity,
        votes_version=VOTES_VERSION,
        job=job.model_dump(mode="json"),
        checkpoint=CheckpointRecord(url=job.model.checkpoint, sha256="0" * 64, key=None),
        shards=tuple(ShardRecord.of(shard, limit=None) for shard in shards),
    )
    (run / VOTES).mkdir(parents=True)
    (run / RUN_JSON).write_bytes(record.encode())
    for index, (shard, count) in enumerate(zip(shards, counts, strict=True)):
        if distinct_files is not None and index >= distinct_files:
            source = index % distinct_files
            shutil.copy(run / votes_file(source, shards[source].name), run / votes_file(index, shard.name))
            continue
        metadata = FileMetadata(
            run_id=record.run_id,
            shard=ShardFileRecord(name=shard.name, size=shard.size),
            shard_sha256="0" * 64,
            votes_version=VOTES_VERSION,
            geometry=job.ablation.model_dump(mode="json") | {"crop": SIDE},
        )
        shown = ablations_of(job.ablation, SIDE, SIDE)
        rows_of_file = _rows(job, shown, shard.name, count, index, run_length)
        data = encode(rows_of_file, shown.num_ablations, family_of(job.ablation), metadata)
        (run / votes_file(index, shard.name)).write_bytes(data)


def _rows(job: Job, ablations: Ablations, shard: str, count: int, seed: int, run_length: int) -> list[Row]:
    random, family = np.random.default_rng(seed), family_of(job.ablation)
    votes = _votes(random, count, ablations.num_ablations)
    if run_length > 1:
        votes = _in_runs(votes, run_length, random)
    margins = random.random(votes.shape, np.float32)
    rows = [
        Row(
            key=f"{index:08d}",
            shard=shard,
            index=index,
            image_offset=512 + MEMBER_BYTES * index,
            image_bytes=1500,
            sha256=random.bytes(32),
            status="ok",
            label=int(votes[index, 0]),
            width=500,
            height=375,
            clean_prediction=int(votes[index, 0]),
            clean_margin=1.0,
            votes=votes[index],
            margins=margins[index],
        )
        for index in range(count)
    ]
    return with_certificates(rows, family, partial(family.certify, ablations=ablations, classes=CLASSES))


def _votes(random: np.random.Generator, images: int, ablations: int) -> NDArray[np.uint16]:
    """[images, ablations]"""
    leader = random.integers(0, CLASSES, (images, 1), dtype=np.uint16)
    rivals = random.integers(0, CLASSES, (images, RIVALS), dtype=np.uint16)
    which = np.minimum(random.geometric(0.4, (images, ablations)), RIVALS) - 1
    anybody = random.integers(0, CLASSES, (images, ablations), dtype=np.uint16)
    others = np.where(random.random((images, ablations)) < RIVAL_SHARE, np.take_along_axis(rivals, which, 1), anybody)
    return np.where(random.random((images, ablations)) < random.random((images, 1)), leader, others)


def _in_runs(votes: Votes, run_length: int, random: np.random.Generator) -> Votes:
    """Votes that are those of the ablation before, but for one in `run_length`."""
    new = random.random(votes.shape) < 1 / run_length
    sources = np.maximum.accumulate(np.where(new, np.arange(votes.shape[1]), 0), axis=1)
    return np.take_along_axis(votes, sources, axis=1)
