"""Suites of the small job: two models that see the same pixels, and one that sees others."""

from pathlib import Path
from typing import Any

import torch
import yaml

from smoothcert.workers.networks.described_jobs import load_suite
from tests.helpers import jobs

SAME, OTHER = ("first", "second"), "third"


def write_suite(folder: Path, **changes: Any) -> Path:
    """suite.yaml beside job.yaml of the small job, whose keys its entries share; `changes` replace top-level keys."""
    shared = yaml.safe_load(jobs.write_job(folder).read_text())
    state = torch.load(folder / "weights.pt")
    torch.save({name: value * 1.1 for name, value in state.items()}, folder / "weights2.pt")
    suite = shared | {
        "name": "suite",
        "entries": {
            "first": {},
            "second": {"model": {"checkpoint": "weights2.pt"}, "ablation": {"kind": "row", "size": 5, "stride": 3}},
            "third": {"preprocess": {"resize": 20}, "clean": False},
        },
    }
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(suite | changes))
    return path


def entries_of(path: Path) -> dict[str, Any]:
    """The jobs of a suite file by the names of their entries."""
    return dict(load_suite(path).jobs)
