"""Does float8 pay on a GPU? The whole engine in bfloat16 and with float8 products (float8_blocks.py), in turns.

    bfloat16        the engine as it is
    float8          all products of every block but the last in float8, one scale for each token
    float8, fast    the same with products that keep fewer digits of their sums (use_fast_accum)

For each the votes are compared with float32's: first those of a job's network, on the images of tars or on made-up
ones, then those of larger networks with random weights. Random weights give votes with hardly a margin, so there the
clear ones count, and how far logits are from float32's (relative norm). With tars, smoothed and certified accuracy show
what the format costs. Without a GPU torch computes the same numbers, up to rounding, so votes can be compared there,
but times say nothing.

Run from the repository root:

    python -m benchmarks.float8 [--tars FOLDER --images 1000] [--model vit_base_patch16_224]
"""

import argparse
import copy
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from timm.models import VisionTransformer
from torch import Tensor

from benchmarks.agreement import accuracies, certificates_of, images_of
from benchmarks.arguments import ablation_of
from benchmarks.ceilings import synchronise
from benchmarks.float8_blocks import use_float8
from smoothcert.manifests.job import Job, Model, Preprocess, load_job
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.shown import Shown
from smoothcert.workers.networks.checkpoints import recognise
from smoothcert.workers.networks.classifiers import build_classifier, load_classifier
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.smoothed_vit import SmoothedViT

_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
_CROP = 224
_CLEAR = 0.05  # margin of a clear vote, as a share of the largest logit; as in engine.py
_PATCH_PX = 2  # side of the square whose certified accuracy is shown
_COLUMNS = {  # of the table: how a figure is written, by its name
    "images_per_s": ("images/s", ",.1f"),
    "times_bfloat16": ("times bfloat16", ".3f"),
    "equal_votes": ("equal votes", ".2%"),
    "clear_equal_votes": ("of clear ones", ".2%"),
    "largest_margin": ("margin of others", ".3g"),
    "logits_error": ("error of logits", ".4f"),
    "smoothed": ("smoothed", ".2%"),
    f"certified_{_PATCH_PX}": ("certified", ".2%"),
}


def main() -> None:
    args = _arguments()
    overrides = [f"patches=[{_PATCH_PX}]", *([f"images.shards={args.tars}"] if args.tars else [])]
    job = load_job(args.job, overrides)
    records = [_measure_job(args, job)]
    records += [_measure_random(args, architecture) for architecture in args.model]
    card = torch.cuda.get_device_name() if _DEVICE.type == "cuda" else "no GPU"
    table = Table(title=f"{card}, medians of {args.rounds} rounds; certified against {_PATCH_PX} x {_PATCH_PX}")
    for heading in ("model", "format"):
        table.add_column(heading, no_wrap=True)
    for heading, _ in _COLUMNS.values():
        table.add_column(heading, justify="right")
    for record in records:
        for name, found in record["formats"].items():
            cells = (format(found[key], form) if key in found else "" for key, (_, form) in _COLUMNS.items())
            table.add_row(record["model"], name, *cells)
    Console(width=170).print(table)
    print(json.dumps({"card": card, "torch": torch.__version__, "records": records}))


def _measure_job(args: argparse.Namespace, job: Job) -> dict[str, Any]:
    """The network of the job, with its weights."""
    checkpoint = args.checkpoint or Path(job.model.checkpoint)
    network: Any = load_classifier(job.model, job.preprocess, checkpoint, recognise(checkpoint, None).key)
    crop = job.preprocess.crop
    labels = None
    if args.tars:
        images, labels = images_of(job, args.images)
    else:  # squares of a token's size, so that ablations differ
        images = torch.randint(0, 256, (args.images, crop // 4, crop // 4, 3), dtype=torch.uint8)
        images = images.repeat_interleave(4, 1).repeat_interleave(4, 2)
    engines = engines_of(network, ablations_of(job.ablation, crop, crop), job.preprocess, job.model)
    formats = measure(engines, images, args.rounds)
    if labels is not None:
        for name, engine in engines.items():
            classes = engine.votes(images).classes.cpu().numpy()
            formats[name] |= accuracies(job, certificates_of(job, classes), labels)
    return {"model": job.name, "images": len(images), "photographs": bool(args.tars), "formats": formats}


def _measure_random(args: argparse.Namespace, architecture: str) -> dict[str, Any]:
    """A network with random weights, on random pixels."""
    torch.manual_seed(0)
    model = Model(architecture=architecture, checkpoint="none", classes=1000)
    network: Any = build_classifier(model, _CROP).eval().requires_grad_(False)
    images = torch.randint(0, 256, (args.random_images, _CROP, _CROP, 3), dtype=torch.uint8)
    shown = ablations_of(ablation_of(args.ablation), _CROP, _CROP)
    formats = measure(engines_of(network, shown, Preprocess(), model), images, args.rounds)
    return {"model": architecture, "ablation": args.ablation, "images": len(images), "formats": formats}


def engines_of(
    network: VisionTransformer, shown: Shown, preprocess: Preprocess, model: Model
) -> dict[str, SmoothedViT]:
    """The network, float32 and in evaluation mode, in an engine of each format."""

    def engine(dtype: str, own: VisionTransformer) -> SmoothedViT:
        return SmoothedViT(own, shown, preprocess=preprocess, format=Format.of(model, dtype), device=_DEVICE)

    engines = {dtype: engine(dtype, copy.deepcopy(network)) for dtype in ("float32", "bfloat16")}
    for name, fast in (("float8", False), ("float8, fast", True)):
        own = copy.deepcopy(network)
        engines[name] = engine("bfloat16", own)
        use_float8(engines[name], own.blocks, fast=fast)
    return engines


def measure(engines: dict[str, SmoothedViT], images: Tensor, rounds: int) -> dict[str, dict[str, float]]:
    """Speed of all formats but float32, and how each agrees with float32."""
    exact = engines["float32"].logits(images)
    formats = {name: agreement(engine.logits(images), exact) for name, engine in engines.items()}
    timed = {name: engine for name, engine in engines.items() if name != "float32"}
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(rounds + 1):
        for name, engine in timed.items():
            synchronise(_DEVICE)
            start = time.perf_counter()
            engine.votes(images).classes.cpu()
            if turn:  # in the first, Triton compiles and kernels are chosen
                seconds[name].append(time.perf_counter() - start)
    for name, each in seconds.items():
        ratios = (plain / this for plain, this in zip(seconds["bfloat16"], each, strict=True))
        formats[name]["images_per_s"] = len(images) / statistics.median(each)
        formats[name]["times_bfloat16"] = statistics.median(ratios)
    return formats


def agreement(logits_NAK: Tensor, exact_NAK: Tensor) -> dict[str, float]:
    """How logits and their votes agree with exact ones.

    Returns:
        equal_votes: share of votes; clear_votes: share of those whose exact margin is above 5 % of the largest logit;
            clear_equal_votes: share of equal ones among these, absent if there are none; largest_margin: exact one of
            the votes that differ, 0 if none does; logits_error: relative norm.
    """
    top_NA2 = exact_NAK.topk(2, dim=-1).values
    margins_NA = top_NA2[..., 0] - top_NA2[..., 1]
    clear_NA = margins_NA > _CLEAR * exact_NAK.abs().max()
    equal_NA = logits_NAK.argmax(-1) == exact_NAK.argmax(-1)
    found = {
        "equal_votes": equal_NA.float().mean().item(),
        "clear_votes": clear_NA.float().mean().item(),
        "largest_margin": margins_NA.masked_fill(equal_NA, 0).max().item(),
        "logits_error": ((logits_NAK - exact_NAK).norm() / exact_NAK.norm()).item(),
    }
    if clear_NA.any():
        found["clear_equal_votes"] = equal_NA[clear_NA].float().mean().item()
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time the engine in float8 against bfloat16, and compare its votes.")
    parser.add_argument(
        "--model", nargs="*", default=["vit_small_patch16_224", "vit_base_patch16_224"], help="with random weights"
    )
    parser.add_argument("--ablation", default="column:19:1", help="of these models, KIND:SIZE:STRIDE in pixels")
    parser.add_argument("--random-images", type=int, default=64, help="for these models")
    parser.add_argument("--job", type=Path, default=Path("manifests/examples/cifar10-test.yaml"))
    parser.add_argument("--checkpoint", type=Path, help="a local file in place of the job's")
    parser.add_argument("--tars", type=Path, help="folder of the job's images; made-up ones without it")
    parser.add_argument("--images", type=int, default=1000, help="for the job")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
