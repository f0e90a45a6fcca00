"""Finished runs with given votes, and all that follows from them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smoothcert.manifests.identity import identity_of, run_id_of
from smoothcert.manifests.job import Job
from smoothcert.manifests.shards import Shard
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.runs.run import Run, open_run
from smoothcert.workers.storage.store import sha256_of
from tests.helpers.rows import file_of

CROP, CLASSES = 12, 4
JOB: dict[str, Any] = {
    "name": "judged",
    "images": {"shards": "unused"},
    "model": {"architecture": "vit_tiny_patch16_224", "checkpoint": "unused", "classes": CLASSES},
    "preprocess": {"resize": None, "crop": CROP},
    "ablation": {"kind": "column", "size": 3},
    "patches": [1, 2],
    "output": "unused",
}
Image = dict[str, Any]


def image(key: str, votes: Sequence[int] | None, label: int | None = 0, **columns: Any) -> Image:
    """An image with these votes, of margin 1 each, or one that could not be decoded."""
    return {
        "key": key,
        "sha256": key.encode().ljust(32, b"\0")[:32],
        "label": label,
        "votes": votes,
        "margins": np.ones(CROP if votes is None else len(votes), np.float32),
        "clean_prediction": 0,
        "clean_margin": 1.0,
        **columns,
    }


def judged_run(
    folder: Path, shards: Mapping[str, Sequence[Image]], *, weights: str = "0", finished: bool = True, **changes: Any
) -> Run:
    """A run over these shards; `changes` replace keys of the job, `weights` is a digit of the weights' hash."""
    content = JOB | changes
    job = Job.model_validate(content)
    tars = [Shard(name, name, 1, "", None) for name in shards]
    limit = job.images.limit
    identity = identity_of(job, tars, checkpoint_sha256=weights * 64, checkpoint_key=None, limit=limit)
    path = folder / run_id_of(identity)
    (path / "votes").mkdir(parents=True)
    record = {
        "run_id": path.name,
        "name": job.name,
        "partial": limit is not None,
        "identity": identity,
        "job": content,
        "checkpoint": {"sha256": weights * 64, "key": None},
        "shards": [vars(tar) | {"limit": None} for tar in tars],
    }
    (path / "run.json").write_text(json.dumps(record))
    ablations = ablations_of(job.ablation, job.preprocess.crop, job.preprocess.crop)
    files = {}
    for number, (name, images) in enumerate(shards.items()):
        rows = [_row(one, name, place, job, ablations) for place, one in enumerate(images)]
        metadata = {"run_id": path.name, "shard": {"name": name}}
        file = path / "votes" / f"{number:05d}-{name.removesuffix('.tar')}.parquet"
        file.write_bytes(file_of(rows, ablations.num_ablations, metadata, family_of(job.ablation)))
        files[f"votes/{file.name}"] = sha256_of(file)
    if finished:
        (path / "_SUCCESS").write_text(json.dumps({"files": files, "rows": sum(map(len, shards.values()))}))
    return open_run(str(path))


def _row(one: Image, shard: str, index: int, job: Job, ablations: Any) -> dict[str, Any]:
    row = {"shard": shard, "index": index, "image_offset": 0, "image_bytes": 1, "status": "ok", **one}
    if not job.clean:
        row |= {"clean_prediction": None, "clean_margin": None}
    if one["votes"] is None:
        absent = ("votes", "margins", "clean_prediction", "clean_margin")
        return {**row, **dict.fromkeys(absent), "status": "decode_error", "error": "it is no image"}
    votes = np.array([one["votes"]])
    clean = np.array([-1 if row["clean_prediction"] is None else row["clean_prediction"]])
    cast = Cast(votes, np.array([row["margins"]], np.float32), clean=clean)
    certificates = family_of(job.ablation).certify(cast, ablations, classes=job.model.classes)
    columns = {name: None if values is None else values[0].item() for name, values in vars(certificates).items()}
    return {**row, **columns, "votes": votes[0].astype(np.int32)}
