"""What a number format changes: votes, margins, accuracy and certificates of a job's first images, against float32.

Run from the repository root, after `smoothcert pack` made the tars (docs/training.md):

    python -m benchmarks.agreement manifests/examples/cifar10-test.yaml --images 500
"""

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from smoothcert.manifests.job import Job, NumberFormat, load_job
from smoothcert.manifests.shards import find_shards
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.certificates.majority import Certificates, certify
from smoothcert.workers.networks.checkpoints import recognise
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.tars.card_decoder import decode_one
from smoothcert.workers.tars.shard_reader import read_samples
from smoothcert.workers.votes.voters import load_voter

_IMAGES_PER_BATCH = 50


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare number formats on the first images of a job.")
    parser.add_argument("job", type=Path)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--dtype", nargs="+", default=list(get_args(NumberFormat)))
    args = parser.parse_args()
    job = load_job(args.job, [])
    pixels, labels = images_of(job, args.images)
    votes = {dtype: _votes(job, dtype, pixels) for dtype in dict.fromkeys(["float32", *args.dtype])}
    plain = votes["float32"]
    headings = ["format", "votes that differ", "largest float32 margin of these", "margins apart by up to"]
    headings += ["other predictions", "other certificates"]
    table = Table(title=f"{job.name}: {len(labels)} images, {plain['classes'].size:,} votes; certified accuracy")
    for heading in (*headings, "smoothed", *(f"{side} x {side}" for side in job.patches)):
        table.add_column(heading, justify="left" if heading == "format" else "right")
    records = []
    by_float32 = certificates_of(job, plain["classes"])
    for dtype, answer in votes.items():
        certified = certificates_of(job, answer["classes"])
        differ = answer["classes"] != plain["classes"]
        agree = np.abs(answer["margins"] - plain["margins"])[~differ]
        record = {
            "dtype": dtype,
            "votes_differ": float(differ.mean()),
            "largest_margin_of_these": float(plain["margins"][differ].max(initial=0)),
            "margins_apart": float(agree.max()),
            "predictions_differ": int((certified.prediction != by_float32.prediction).sum()),
            "certificates_differ": int((certified.max_certified_patch != by_float32.max_certified_patch).sum()),
            **accuracies(job, certified, labels),
        }
        records.append(record)
        shares = (f"{record[name]:.2%}" for name in record if name.startswith(("smoothed", "certified")))
        apart = (f"{record['largest_margin_of_these']:.3g}", f"{record['margins_apart']:.3g}")
        changed = (str(record["predictions_differ"]), str(record["certificates_differ"]))
        table.add_row(dtype, f"{record['votes_differ']:.3%}", *apart, *changed, *shares)
    Console(width=180).print(table)
    print(json.dumps(records))


def images_of(job: Job, count: int) -> tuple[torch.Tensor, np.ndarray[Any, Any]]:
    """Pixels [images, crop, crop, channels] uint8 and labels [images] of a job's first images that can be decoded."""
    store = AnyStore(job.storage)

    def samples() -> Iterator[Any]:
        for shard in find_shards(job.images, store):
            with store.local(shard.url) as tar:
                yield from read_samples(tar, job.images, classes=job.model.classes)

    first = list(islice(samples(), count))
    pixels = [decode_one(sample.image, job.preprocess).pixels for sample in first]
    return torch.from_numpy(np.stack([image for image in pixels if image is not None])), np.array(
        [sample.label for sample, image in zip(first, pixels, strict=True) if image is not None]
    )


def _votes(job: Job, dtype: str, pixels: torch.Tensor) -> dict[str, np.ndarray[Any, Any]]:
    job = job.model_copy(update={"model": job.model.model_copy(update={"dtype": dtype})})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with AnyStore(job.storage).local(job.model.checkpoint) as checkpoint:
        key = recognise(checkpoint, job.model.checkpoint_key).key
        engine = load_voter(job, checkpoint, key, device)
    answers = [engine.votes(batch) for batch in pixels.split(_IMAGES_PER_BATCH)]
    return {
        "classes": torch.cat([answer.classes for answer in answers]).cpu().numpy(),
        "margins": torch.cat([answer.margins for answer in answers]).cpu().numpy(),
    }


def certificates_of(job: Job, classes: np.ndarray[Any, Any]) -> Certificates:
    """Of votes [images, ablations] on columns, rows or blocks."""
    crop = job.preprocess.crop
    return certify(classes.astype(np.uint16), ablations_of(job.ablation, crop, crop), classes=job.model.classes)


def accuracies(job: Job, certificates: Certificates, labels: np.ndarray[Any, Any]) -> dict[str, float]:
    """Shares of images: `smoothed`, and `certified_M` against each M x M square that the job shows."""
    right = certificates.prediction == labels
    certified = {
        f"certified_{side}": float((right & (certificates.max_certified_patch >= side)).mean()) for side in job.patches
    }
    return {"smoothed": float(right.mean()), **certified}


if __name__ == "__main__":
    main()
