"""What certificates cost: both largest squares and the exact answer for three rectangles, from votes in memory.

    random   every vote is for a random class: about 200 classes an image at A = 224, K = 1,000
    leading  one class an image has a share of the votes that is uniform from 0 to 1, the rest is random
    run      votes of a run, repeated to fill all images and ablations

One number at a time is changed from the setting of 50,000 images, A = 224, K = 1,000. Each case has
a process of its own. Its peak memory is shown, including the votes and Python.

Run from the repository root: python -m benchmarks.certificates [--run OUTPUT/RUN_ID]
"""

import argparse
import json
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from smoothcert.manifests.ablation import ablation_of
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.majority import certify
from smoothcert.workers.certificates.rules import Ballots, exact_rule
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import open_run
from smoothcert.workers.runs.votes_table import matrix_of

SIDE = 224
RECTANGLES = [Threat(32, 32), Threat(16, 48), Threat(48, 16)]
COLUMN, BLOCK = {"kind": "column", "size": 19}, {"kind": "block", "size": 75, "stride": 16}


class Case(NamedTuple):
    votes: str
    kind: str = "column"
    images: int = 50_000
    stride: int = 1
    classes: int = 1000
    run: str | None = None


class Cost(NamedTuple):
    ablations: int
    squares_s: float
    rectangles_s: float
    peak_gib: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Time certificates.")
    parser.add_argument("--run", help="a run whose votes to use, of 1,000 classes")
    console, table = Console(), Table()
    for heading in ("votes", "kind", "images", "A", "K", "squares s", "3 rectangles s", "total s", "peak GiB"):
        table.add_column(heading, justify="right")
    records = []
    for case in _cases(parser.parse_args().run):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            cost = process.submit(measure, case).result()
        total = cost.squares_s + cost.rectangles_s
        table.add_row(
            case.votes,
            case.kind,
            *(f"{number:,}" for number in (case.images, cost.ablations, case.classes)),
            *(f"{number:.2f}" for number in (cost.squares_s, cost.rectangles_s, total, cost.peak_gib)),
        )
        records.append(case._asdict() | cost._asdict())
    console.print(table)
    print(json.dumps(records))


def _cases(run: str | None) -> Iterator[Case]:
    if run is not None:
        yield Case("run", run=run)
        yield Case("run", kind="block", run=run)
    for votes in ("random", "leading"):
        yield Case(votes)
        yield Case(votes, kind="block")
        yield Case(votes, classes=65_536)
    for images in (12_500, 25_000):
        yield Case("leading", images=images)
    for stride in (2, 4):
        yield Case("leading", stride=stride)
    for classes in (10, 100):
        yield Case("leading", classes=classes)


def measure(case: Case) -> Cost:
    """Seconds and memory of one case."""
    ablation = ablation_of(BLOCK if case.kind == "block" else COLUMN | {"stride": case.stride})
    ablations = ablations_of(ablation, SIDE, SIDE)
    votes = _votes(case, ablations.num_ablations)
    start = time.perf_counter()
    certify(votes, ablations, classes=case.classes)
    squares = time.perf_counter()
    ballots = Ballots.of(votes, classes=case.classes)
    for threat in RECTANGLES:
        exact_rule(ballots, ablations, threat)
    end = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return Cost(ablations.num_ablations, squares - start, end - squares, peak)


def _votes(case: Case, ablations: int) -> NDArray[np.uint16]:
    if case.run is not None:
        files = read_published(open_run(case.run), ["votes"])
        real = np.concatenate([matrix_of(file.rows["votes"].drop_null()) for file in files])
        wide = np.repeat(real, -(-ablations // real.shape[1]), axis=1)[:, :ablations]
        return np.resize(wide, (case.images, ablations))
    random = np.random.default_rng(0)
    votes = random.integers(0, case.classes, (case.images, ablations), dtype=np.uint16)
    if case.votes == "leading":
        leader = random.integers(0, case.classes, (case.images, 1), dtype=np.uint16)
        votes = np.where(random.random(votes.shape, np.float32) < random.random((case.images, 1)), leader, votes)
    return votes


if __name__ == "__main__":
    main()
