"""What one pass saves: three jobs on the same tars as a suite, against the same jobs one after another.

    fetched, decoded     shards and images, counted
    fetch and decode, s  seconds of all threads in the fetch of a tar, the check of its headers and the decoding
    all, s               seconds of the whole work: votes, certificates and files, too

Each side does all shards; the sides take turns, and medians of the rounds count. The three models have random weights
and the same pixels; `--stride 32` leaves 7 ablations an image, so decoding is a large part of the work.

Run from the repository root: python -m benchmarks.suite [--tars FOLDER]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import timm
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.pipeline import made_up_tars
from smoothcert.manifests.job import Job
from smoothcert.pipeline.certify.begin import begin
from smoothcert.pipeline.certify.plan import Plan, certifier_of, make_plan
from smoothcert.workers import certifier as certifier_module
from smoothcert.workers.tars import pixels

FIGURES = ("fetched", "decoded", "fetch_and_decode_s", "all_s")


def main() -> None:
    args = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        tars = args.tars or made_up_tars(Path(folder), args.shards, args.images)[0].parent
        weights = [_weights(Path(folder), args.model, seed) for seed in range(3)]
        sides: dict[str, list[dict[str, float]]] = {"three jobs": [], "one suite": []}
        for number in range(args.rounds):
            plans = [_plan(args, tars, file, Path(folder) / f"{number}") for file in weights]
            sides["three jobs"].append(_measure([[plan] for plan in plans], args.threads))
            plans = [_plan(args, tars, file, Path(folder) / f"{number}-suite") for file in weights]
            sides["one suite"].append(_measure([plans], args.threads))
    table = Table("", *(name.replace("_", " ") for name in FIGURES), title=f"{args.model}, stride {args.stride}")
    medians = {
        side: {name: statistics.median(one[name] for one in rounds) for name in FIGURES}
        for side, rounds in sides.items()
    }
    for side, figures in medians.items():
        table.add_row(side, *(f"{figures[name]:,.2f}" for name in FIGURES))
    ratios = {name: medians["one suite"][name] / medians["three jobs"][name] for name in FIGURES}
    table.add_row("suite / jobs", *(f"{ratio:.1%}" for ratio in ratios.values()))
    Console(width=120).print(table)
    print(json.dumps(medians | {"ratios": ratios}))


def _measure(passes: Sequence[Sequence[Plan]], threads: int) -> dict[str, float]:
    """Do the passes one after another, each with all shards."""
    for plans in passes:
        for plan in plans:
            begin(plan)
    with _counting() as counted:
        start = time.perf_counter()
        for plans in passes:
            certifier = certifier_of(plans, threads)
            for task in plans[0].todo:
                for _ in certifier.certify(task):
                    pass
        return {**counted, "all_s": time.perf_counter() - start}


@contextmanager
def _counting() -> Iterator[Counter[str]]:
    """Count fetches and decoded images, and the seconds that they take."""
    counted = Counter[str]()
    fetched, decode = certifier_module.fetched, pixels.decode

    @contextmanager
    def counting_fetch(*arguments: Any) -> Iterator[Any]:
        start = time.perf_counter()
        with fetched(*arguments) as shard:
            _ = shard.tar.read_bytes()
            counted.update(fetched=1)
            counted["fetch_and_decode_s"] += time.perf_counter() - start  # type: ignore[assignment]
            yield shard

    def counting_decode(*arguments: Any) -> Any:
        start = time.perf_counter()
        decoded = decode(*arguments)
        counted.update(decoded=1)
        counted["fetch_and_decode_s"] += time.perf_counter() - start  # type: ignore[assignment]
        return decoded

    with patch.object(certifier_module, "fetched", counting_fetch), patch.object(pixels, "decode", counting_decode):
        yield counted


def _plan(args: argparse.Namespace, tars: Path, weights: Path, output: Path) -> Plan:
    job = Job.model_validate(
        {
            "name": "suite",
            "images": {"shards": str(tars), "label": None},
            "model": {"architecture": args.model, "checkpoint": str(weights), "classes": 1000},
            "ablation": {"kind": "column", "size": 19, "stride": args.stride},
            "clean": False,
            "output": str(output),
        }
    )
    return make_plan(job)


def _weights(folder: Path, model: str, seed: int) -> Path:
    torch.manual_seed(seed)
    path = folder / f"weights-{seed}.pt"
    torch.save(timm.create_model(model).state_dict(), path)
    return path


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time a suite of three models.")
    parser.add_argument("--tars", type=Path, help="folder of tars; default: made-up photos")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--images", type=int, default=64, help="of a made-up shard")
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--stride", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
