"""What `smoothcert query` costs: grids of questions about made-up votes.

Votes are spatially correlated, as those of networks are: a vote is that of the ablation before it, unless it is drawn
anew, which happens once in RUN_LENGTH ablations. The share of the leading class is uniform from 0 to 1, so that many
images are neither certain nor lost. Margins are uniform from 0 to 1.

Grids "per image" write the answers for each image to a Parquet file, as --parquet does.

Each grid is asked in a process of its own, which may start others: with --processes 1 2, each turn asks with one
process, then with two. CPU seconds are those of all. A short run says what a row costs, and the table multiplies that
with the rows of ImageNet's training set; the start of the first process is left out. With --rows 1282000 the whole run
is made, from 80,000 distinct rows, and asked.

Not covered: reading from S3.

Run from the repository root: python -m benchmarks.query [--rows 20000] [--turns 5] [--processes 1 2]
    [--kind column] [--only NAME ...]
"""

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.reading import in_a_process

IMAGENET_ROWS = 1_282_000
RUN_LENGTH = 8
ROWS_PER_FILE = 1000
ABLATIONS: dict[str, dict[str, Any]] = {
    "column": {"kind": "column", "size": 19},
    "inside": {"kind": "column", "size": 19, "edges": "inside"},
    "block": {"kind": "block", "size": 75, "stride": 16},
    "mask": {"kind": "mask", "threat": 32, "per_axis": 6},
    "two masks": {"kind": "mask", "threat": 32, "per_axis": 3, "threat_patches": 2},
}
SIZES = [4, 8, 16, 23, 32, 39, 48, 64]
WINDOW_GRIDS: dict[str, dict[str, Any]] = {
    "one patch": {"patches": 32},
    "one small patch": {"patches": 4},
    "two patches": {"patches": 32, "counts": 2},
    "two small patches": {"patches": 4, "counts": 2},
    "two of 16": {"patches": 16, "counts": 2},
    "three patches": {"patches": 32, "counts": 3},
    "eight sizes": {"patches": SIZES},
    "1..64": {"patches": [*range(1, 65)]},
    "five tolerances": {"patches": 32, "tolerances": [0, 0.01, 0.05, 0.1, 0.2]},
    "a tolerance, two patches": {"patches": 8, "counts": 2, "tolerances": 0.05},
    "strides 1 2 4": {"patches": 32, "strides": [1, 2, 4]},
    "strides 2 4 8, two patches": {"patches": 32, "strides": [2, 4, 8], "counts": 2},
    "strides 4 8, three patches": {"patches": 16, "strides": [4, 8], "counts": 3},
    "top 1 2 3": {"patches": 32, "top": [1, 2, 3]},
    "top 5 of the label": {"patches": 32, "top": 5, "of": "label"},
    "top 2, two patches": {"patches": 8, "counts": 2, "top": 2},
    "stride 8, six patches": {"patches": 4, "strides": 8, "counts": 6},
    "stride 8, six patches, top 2": {"patches": 4, "strides": 8, "counts": 6, "top": 2},
    "by class": {"patches": 32, "by_class": True},
    "rectangles": {"patches": [(8, 64), (64, 8), (16, 48), (224, 4)]},
    "both rules": {"patches": 32, "rules": ["exact", "margin"]},
    "sizes x patches": {"patches": [8, 16, 32], "counts": [1, 2]},
    "1..64 x patches": {"patches": [*range(1, 65)], "counts": [1, 2]},
    "top x patches": {"patches": 16, "counts": [1, 2], "top": [1, 2, 3, 5, 10]},
    "sizes x patches x strides x tolerances": {
        "patches": [8, 16, 32],
        "counts": [1, 2],
        "strides": [1, 2],
        "tolerances": [0, 0.05],
    },
    "per image: one patch": {"patches": 32, "per_image": True},
    "per image: two patches": {"patches": 16, "counts": 2, "per_image": True},
    "per image: two large patches": {"patches": 64, "counts": 2, "per_image": True},
    "per image: three patches": {"patches": 16, "counts": 3, "per_image": True},
    "per image: stride 4, three patches": {"patches": 16, "strides": 4, "counts": 3, "per_image": True},
    "per image: stride 8, six patches": {"patches": 4, "strides": 8, "counts": 6, "per_image": True},
    "per image: top 2": {"patches": 16, "top": 2, "per_image": True},
    "per image: top 2, two patches": {"patches": 16, "counts": 2, "top": 2, "per_image": True},
    "per image: top 5, two patches": {"patches": 16, "counts": 2, "top": 5, "per_image": True},
    "per image: stride 4, three patches, top 2": {
        "patches": 16,
        "strides": 4,
        "counts": 3,
        "top": 2,
        "per_image": True,
    },
}
MASK_GRIDS: dict[str, dict[str, Any]] = {
    "own threat": {},
    "smaller patches": {"patches": [8, 16, 32]},
    "published": {"rules": ["exact", "published"]},
    "detection": {"certificate": ["recovery", "detection"]},
    "alarms": {"certificate": "detection", "alarm_below": [0, 0.1, 0.5]},
    "tolerances": {"tolerances": [0, 0.05]},
    "by class": {"by_class": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time grids of questions.")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--processes", type=int, nargs="+", default=[1])
    parser.add_argument("--kind", choices=[*ABLATIONS], default="column")
    parser.add_argument("--only", nargs="+", help="names of grids")
    parser.add_argument("--keep", type=Path, help="folder of the run: made if it is missing, and kept")
    args = parser.parse_args()
    table = Table(title=f"{args.kind}: {args.rows:,} rows")
    for heading in (
        "grid",
        "processes",
        "seconds",
        "CPU seconds",
        f"CPU seconds for {IMAGENET_ROWS:,} rows",
        "peak memory, GB",
    ):
        table.add_column(heading, justify="left" if heading == "grid" else "right")
    grids = MASK_GRIDS if "mask" in args.kind else WINDOW_GRIDS
    with tempfile.TemporaryDirectory() as temporary:
        run = (args.keep or Path(temporary)) / f"{args.kind} {args.rows}"
        if not run.exists():
            in_a_process(_make_run, run, args.rows, ABLATIONS[args.kind])
        for name in args.only or grids:
            grid, stride = dict(grids[name]), ABLATIONS[args.kind].get("stride", 1)
            if "strides" in grid:
                times = grid["strides"]
                grid["strides"] = stride * times if isinstance(times, int) else [stride * each for each in times]
            for measured in in_a_process(measure, run, grid, args.turns, args.processes):
                record = {"grid": name, **measured}
                whole = record["cpu_s"] * IMAGENET_ROWS / args.rows
                seconds = (f"{record['seconds']:.2f}", f"{record['cpu_s']:.2f}", f"{whole:.0f}")
                table.add_row(name, str(record["processes"]), *seconds, f"{record['peak_gb']:.2f}")
                print(json.dumps(record), flush=True)
    Console().print(table)


def _make_run(run: Path, rows: int, ablation: dict[str, Any]) -> None:
    from benchmarks.made_up_runs import make_run

    make_run(run, rows, ablation=ablation, rows_per_file=ROWS_PER_FILE, run_length=RUN_LENGTH)


def measure(run: Path, grid: dict[str, Any], turns: int, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Ask a grid by each number of processes, after a first time that does not count; the medians of the turns.

    Peaks are those of this process and of the largest one that it started so far.
    """
    from smoothcert.pipeline.query.answering import Answers, answer, query
    from smoothcert.pipeline.query.answers import AnswersFile
    from smoothcert.pipeline.query.questions import questions_of
    from smoothcert.workers.runs.run import run_of
    from smoothcert.workers.storage.output_file import OutputFile

    grid, per_image = dict(grid), grid.get("per_image", False)
    grid.pop("per_image", None)

    def ask(processes: int) -> Answers:
        if not per_image:
            return query(str(run), processes=processes, **grid)
        with tempfile.TemporaryDirectory() as folder:
            asked = run_of(run)
            with AnswersFile(OutputFile(f"{folder}/answers.parquet", "--parquet")) as file:
                return answer(asked, questions_of(asked.job, **grid), per_image=[file], processes=processes)

    found: dict[int, dict[str, Any]] = {number: {"processes": number} for number in numbers}
    seconds: dict[int, list[float]] = {number: [] for number in numbers}
    cpu_s: dict[int, list[float]] = {number: [] for number in numbers}
    for turn, number in product(range(turns + 1), numbers):
        start, cpu_start = time.perf_counter(), sum(os.times()[:4])
        answers = ask(number)
        if turn or not turns:
            seconds[number].append(time.perf_counter() - start)
            cpu_s[number].append(sum(os.times()[:4]) - cpu_start)
        usages = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        peak_gb = sum(usage.ru_maxrss for usage in usages) * 1024 / 1e9
        certified = [result.classes[None].certified for result in answers.results]
        found[number] |= {"peak_gb": peak_gb, "certified": certified}
    for number, record in found.items():
        record |= {"seconds": statistics.median(seconds[number]), "cpu_s": statistics.median(cpu_s[number])}
    assert len({tuple(record["certified"]) for record in found.values()}) == 1, "answers differ"
    return [*found.values()]


if __name__ == "__main__":
    main()
