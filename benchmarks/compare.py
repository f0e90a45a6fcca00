"""What a comparison and SQL cost on runs as large as ImageNet's training set: 1,282,000 rows of 224 votes.

Two runs of made-up votes, as `benchmarks.verify` makes them. In the second, a twentieth of the images has other votes
in a fifth of the ablations. Each of the first files lies under several names, so that the runs are made in minutes;
neither command keeps anything from one file to the next.

Not covered: reading from S3.

Run from the repository root: python -m benchmarks.compare [--rows 1282000] [--keep FOLDER]
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.verify import CLASSES, IMAGENET_ROWS, ROWS_PER_FILE, SIDE, write_run
from smoothcert.manifests.identity import identity_of, run_id_of
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.certificates.majority import certify
from smoothcert.workers.runs.layout import RUN_JSON, SUCCESS, VOTES, votes_file
from smoothcert.workers.runs.run import open_run
from smoothcert.workers.runs.votes_table import METADATA_KEY, matrix_of
from smoothcert.workers.storage.store import sha256_of

DISTINCT_FILES = 8
CHANGED_IMAGES, CHANGED_VOTES = 0.05, 0.2
QUESTIONS = (
    "select count(*) from images",
    "select count(*) from certified where side = 32 and rule = 'exact' and certified and correct",
    "select sum(smoothed) from classes",
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time compare and sql on large runs.")
    parser.add_argument("--rows", type=int, default=IMAGENET_ROWS)
    parser.add_argument("--keep", type=Path, help="folder of the runs: made if it is missing, and kept")
    args = parser.parse_args()
    table, records = Table(title=f"{args.rows:,} rows of {SIDE} votes"), []
    for heading in ("command", "seconds", "CPU seconds", "peak memory, GB"):
        table.add_column(heading, justify="left" if heading == "command" else "right")
    with tempfile.TemporaryDirectory() as temporary:
        base, new = runs_in(args.keep or Path(temporary), args.rows)
        comparison = ["compare", str(base), str(new), "--patch", "32", "--patch", "16"]
        for command in (comparison, *(["sql", str(base), question] for question in QUESTIONS)):
            record = measure(command)
            records.append(record)
            name = "compare" if command is comparison else command[-1]
            table.add_row(name, *(f"{record[figure]:.1f}" for figure in ("seconds", "cpu_s", "peak_gb")))
    Console().print(table)
    print(json.dumps(records))


def measure(command: list[str]) -> dict[str, Any]:
    """Run a command of smoothcert, and say what it took. Peaks are those of the largest process so far."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "smoothcert", *command], check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"command": command[0], "seconds": seconds, "cpu_s": cpu_s, "peak_gb": after.ru_maxrss / 2**20}


def runs_in(folder: Path, rows: int) -> tuple[Path, Path]:
    """The two runs, made if the folder does not hold them."""
    base, new = folder / "base", folder / "new"
    if not (new / SUCCESS).exists():
        few = folder / "few"
        write_run(few, min(rows, DISTINCT_FILES * ROWS_PER_FILE))
        changed = _changed(few, folder / "few changed")
        for source, run, weights in ((few, base, "0" * 64), (changed, new, "1" * 64)):
            _repeat(source, run, rows, weights)
    return base, new


def _changed(run: Path, out: Path) -> Path:
    """The files of a run with the votes of another network."""
    job, random = open_run(str(run)).job, np.random.default_rng(0)
    ablations = ablations_of(job.ablation, SIDE, SIDE)
    shutil.copytree(run, out)
    for file in sorted((out / VOTES).iterdir()):
        rows = pq.read_table(file)
        votes = matrix_of(rows["votes"]).copy()
        other = (random.random(votes.shape) < CHANGED_VOTES) & (random.random((len(votes), 1)) < CHANGED_IMAGES)
        votes[other] = random.integers(0, CLASSES, int(other.sum()), dtype=np.uint16)
        certificates = vars(certify(votes, ablations, classes=CLASSES))
        columns = {name: pa.array(values.astype(np.int32)) for name, values in certificates.items()}
        columns["votes"] = pa.FixedSizeListArray.from_arrays(pa.array(votes.ravel()), SIDE)
        for name, column in columns.items():
            place = rows.schema.get_field_index(name)
            rows = rows.set_column(place, rows.schema.field(place), column)
        pq.write_table(rows, file, compression="zstd", write_page_checksum=True)
    return out


def _repeat(few: Path, run: Path, rows: int, weights: str) -> None:
    """A finished run of many shards whose files are those of a few, in turn, with the name of their own shard."""
    record, job = open_run(str(few)).record, open_run(str(few)).job
    sources = sorted((few / VOTES).iterdir())
    first = record.shards[0]
    shards = tuple(
        first.model_copy(update={"name": f"{number:05d}.tar", "url": f"{number:05d}.tar"})
        for number in range(-(-rows // ROWS_PER_FILE))
    )
    tars = [shard.shard for shard in shards]
    identity = identity_of(job, tars, checkpoint_sha256=weights, checkpoint_key=None, limit=None)
    checkpoint = record.checkpoint.model_copy(update={"sha256": weights})
    changes = {"run_id": run_id_of(identity), "identity": identity, "shards": shards, "checkpoint": checkpoint}
    (run / VOTES).mkdir(parents=True)
    (run / RUN_JSON).write_bytes(record.model_copy(update=changes).encode())
    files, left = {}, rows
    for number, shard in enumerate(shards):
        table = pq.read_table(sources[number % len(sources)])[: min(left, ROWS_PER_FILE)]
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


if __name__ == "__main__":
    main()
