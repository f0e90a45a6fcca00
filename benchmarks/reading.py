"""What report, compare and sql cost on runs as large as ImageNet's training set: 1,282,000 rows of 224 votes.

The runs are those of `make_runs` (benchmarks/made_up_runs.py). No command keeps anything from one file to the next.

Not covered: reading from S3; pictures on the page, as there are no tars.

Run from the repository root: python -m benchmarks.reading [--rows 1282000] [--keep FOLDER]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

PATCHES = ("--patch", "32", "--patch", "16")
QUESTIONS = (
    "select count(*) from images",
    "select count(*) from certified where side = 32 and rule = 'exact' and certified and correct",
    "select count(*) from classes",
    "select count(*) from ablations",
    "select count(*) from ablations where vote <> label",
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time report, compare and sql on large runs.")
    parser.add_argument("--rows", type=int, default=1_282_000)
    parser.add_argument("--keep", type=Path, help="folder of the runs: made if they are missing, and kept")
    args = parser.parse_args()
    table, records = Table(title=f"{args.rows:,} rows of 224 votes"), []
    for heading in ("command", "seconds", "CPU seconds", "peak memory, GB", "page, MB"):
        table.add_column(heading, justify="left" if heading == "command" else "right")
    with tempfile.TemporaryDirectory() as temporary:
        folder, page = args.keep or Path(temporary), Path(temporary) / "page"
        in_a_process(_make_runs, folder, args.rows)
        base, new, sure, flipped, blocks = (str(folder / name) for name in ("base", "new", "sure", "flipped", "blocks"))
        commands = {
            "report": ["report", base, "-o", str(page)],
            "report of blocks": ["report", blocks, "-o", str(page)],
            "compare": ["compare", base, new, *PATCHES],
            "compare, everything flips": ["compare", sure, flipped, *PATCHES],
            **{f"sql: {question}": ["sql", base, question] for question in QUESTIONS},
        }
        for name, command in commands.items():
            record = {"name": name, **in_a_process(measure, command)}
            if command[0] == "report":
                record["page_mb"] = (page / "report.html").stat().st_size / 1e6
            records.append(record)
            figures = (record.get(figure) for figure in ("seconds", "cpu_s", "peak_gb", "page_mb"))
            table.add_row(name, *("" if figure is None else f"{figure:.1f}" for figure in figures))
    Console().print(table)
    print(json.dumps(records))


def in_a_process(function: Callable[..., Any], *args: object) -> Any:
    """Call a function in a new process. A process knows only the largest peak of all its children; to Linux, a child
    begins with the peak of its parent. So this module imports little.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def _make_runs(folder: Path, rows: int) -> None:
    from benchmarks.made_up_runs import make_runs

    make_runs(folder, rows)


def measure(command: list[str]) -> dict[str, float]:
    """Run a command of smoothcert as the first child of this process, and say what it took."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "smoothcert", *command], check=True, stdout=subprocess.DEVNULL)
    seconds, usage = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"seconds": seconds, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_gb": usage.ru_maxrss * 1024 / 1e9}


if __name__ == "__main__":
    main()
