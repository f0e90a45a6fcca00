"""What the check of a run costs: `smoothcert verify` on files of made-up votes.

Not covered: reading from S3; `--replay`, which costs what the network costs.

Run from the repository root: python -m benchmarks.verify [--rows 100000] [--processes 2] [--masks 6]
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.made_up_runs import CLASSES, IMAGENET_ROWS, JOB, ROWS_PER_FILE, SIDE, write_run
from smoothcert.manifests.ablation import ablation_of
from smoothcert.pipeline.verify.check import verify
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.runs.layout import RUN_JSON


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the check of a run.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--masks", type=int, help="votes of masks against 32 x 32, so many along each axis")
    parser.add_argument("--keep", type=Path, help="folder of the run: made if it is missing, and kept")
    args = parser.parse_args()
    ablation = JOB["ablation"]
    if args.masks:
        ablation = {"kind": "mask", "threat": 32, "per_axis": args.masks}
    num_ablations = ablations_of(ablation_of(ablation), SIDE, SIDE).num_ablations
    table, records = Table(title=f"A = {num_ablations}, K = {CLASSES:,}, {ROWS_PER_FILE:,} rows a file"), []
    for heading in ("processes", "rows", "seconds", "CPU seconds", "rows/s", f"minutes for {IMAGENET_ROWS:,} rows"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory() as temporary:
        run = args.keep or Path(temporary)
        if not (run / RUN_JSON).exists():
            write_run(run, args.rows, ablation=ablation)
        for processes in args.processes:
            record = measure(run, processes)
            records.append(record)
            minutes = IMAGENET_ROWS / record["rows_per_s"] / 60
            texts = [f"{record[name]:,.1f}" for name in ("seconds", "cpu_s", "rows_per_s")]
            table.add_row(str(processes), f"{record['rows']:,}", *texts, f"{minutes:.2f}")
    Console().print(table)
    print(json.dumps(records))


def measure(run: Path, processes: int) -> dict[str, Any]:
    """Check the run; CPU seconds are those of all processes."""
    start, cpu_start = time.perf_counter(), sum(os.times()[:4])
    report = verify(str(run), processes=processes)
    seconds, cpu_s = time.perf_counter() - start, sum(os.times()[:4]) - cpu_start
    assert not report.problems, report.problems[:3]
    rate = report.rows / seconds
    return {"processes": processes, "rows": report.rows, "seconds": seconds, "cpu_s": cpu_s, "rows_per_s": rate}


if __name__ == "__main__":
    main()
