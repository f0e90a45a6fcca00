"""Small runs that are complete, and changes to what they published."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.manifests.job import Job
from smoothcert.pipeline.certify.begin import begin
from smoothcert.pipeline.certify.driver import certify_all
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.certificates.majority import certify
from smoothcert.workers.networks.described_jobs import load_job
from smoothcert.workers.runs import votes_table
from tests.helpers import jobs
from tests.helpers.tars import png, tar_of, write_tar

Row = dict[str, Any]
Edit = Callable[[list[Row]], None]
COLUMN = WindowAblation(kind="column", size=4, stride=3)  # 3 does not divide 16: the published formula is wrong
RUNS: dict[str, dict[str, Any]] = {
    "column": {},
    "row": {"ablation": {"kind": "row", "size": 3, "stride": 2, "edges": "inside"}, "clean": False},
    "block": {"ablation": {"kind": "block", "size": 5, "stride": 4}, "images": {"shards": "tars", "label": None}},
    "limit": {"images": {"shards": "tars", "limit": 9}, "preprocess": {"resize": 10, "crop": 8, "upsample": 2}},
}


def finish(folder: Path, **changes: Any) -> Path:
    """Certify a small job on two shards, the second with images and labels that are wrong; the run's folder."""
    (folder / "tars").mkdir()
    wrong = [("c.png", b"no image"), ("c.cls", b"1"), ("d.png", png(4, 4)), ("e.png", png(16, 16)), ("e.cls", b"cat")]
    write_tar(folder / "tars", tar_of(jobs.samples(0, 6)), "00.tar")
    write_tar(folder / "tars", tar_of([*jobs.samples(6, 2), *wrong, *jobs.samples(8, 2)]), "01.tar")
    return finish_job(load_job(jobs.write_job(folder, **{"ablation": COLUMN.model_dump()} | changes)))


def finish_job(job: Job) -> Path:
    """Certify a job in this process; the run's folder."""
    plan = make_plan(job)
    begin(plan)
    certifier = plan.certifier(threads=1)
    for task in plan.todo:
        assert list(certifier.certify(task))
    certify_all(job)  # nothing is left to do but _SUCCESS
    return Path(plan.run.url)


def file_of(run: Path, number: int = 0) -> Path:
    return sorted((run / "votes").iterdir())[number]


def rows_of(file: Path) -> list[Row]:
    rows: list[Row] = pq.read_table(file).to_pylist()
    return rows


def write(file: Path, rows: list[Row], *, renew: bool, schema: pa.Schema | None = None, **metadata: Any) -> None:
    """Put other rows or metadata into a file; `renew` makes its checksum, and its hash in _SUCCESS, fit again."""
    found = pq.read_schema(file)
    described = json.loads(found.metadata[votes_table.METADATA_KEY]) | metadata
    fields = [
        field.with_nullable(field.nullable or any(row[field.name] is None for row in rows)) for field in schema or found
    ]
    table = pa.Table.from_pylist(rows, pa.schema(fields))
    if renew:
        described["columns_sha256"] = votes_table.columns_sha256(table)
    pq.write_table(table.replace_schema_metadata({votes_table.METADATA_KEY: json.dumps(described)}), file)
    if renew:
        renew_hash(file)


def renew_hash(file: Path) -> None:
    name, sha256 = f"votes/{file.name}", hashlib.sha256(file.read_bytes()).hexdigest()
    edit_json(file.parents[1] / "_SUCCESS", lambda success: success["files"].update({name: sha256}))


def edit_json(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def settle(row: Row, votes: list[int]) -> None:
    """Other votes with all that follows from them."""
    certificates = certify(np.array([votes]), ablations_of(COLUMN, jobs.CROP, jobs.CROP), classes=jobs.CLASSES)
    row |= {"votes": votes} | {name: int(values[0]) for name, values in vars(certificates).items()}


def with_votes(run: Path, copy: Path, votes_of: Callable[[Row], list[int]]) -> Path:
    """A copy of a run of columns with other votes, and all that follows from them, where there are votes."""
    shutil.copytree(run, copy)
    for file in sorted((copy / "votes").iterdir()):
        rows = rows_of(file)
        for row in rows:
            if row["votes"] is not None:
                settle(row, votes_of(row))
        write(file, rows, renew=True)
    return copy


def upload(run: Path, bucket: str) -> str:
    """Copy a run into a bucket of the S3 server in the environment; the run's address there."""
    client = boto3.client("s3")
    for path in run.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), bucket, f"runs/{run.name}/{path.relative_to(run)}")
    return f"s3://{bucket}/runs/{run.name}"


def has(problems: tuple[str, ...], expected: str) -> bool:
    return any(re.search(expected, problem) for problem in problems)
