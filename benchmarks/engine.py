"""How fast the engine votes: against matrix products alone, the published way to drop tokens, and every token.

    ours       SmoothedViT.votes; with --against also in other number formats
    unfused    the same without the kernels of fused_blocks.py, where these run (on a GPU, in 16 bits)
    published  Salman et al.: one offset at a time over all images; every token is embedded, then those shown are kept
    dense      timm's model(x) on masked images, every token through every block
    loop       the same, one masked image at a time

The rivals are timm's own modules. Ways and ceilings take turns. Figures are medians of the rounds, and the ratio to a
rival is the median of the rounds' ratios, so a busy machine slows all alike. A rival may compute only some offsets,
evenly spread; its time is then scaled to all. Votes must agree where ours have a margin above 1e-4 (float32), or 0.05
(16 bits) or 0.1 (int8) of the logits' scale: those of `drop` with the published path, those of `keep` with the dense
one. GFLOP/s count all rows of the last block, though the engine leaves most of them out. They do not count the tokens
that the published path embeds and drops. "of products" is the share of the best of ceilings.py's shapes, each the
median of the rounds; for int8, of bfloat16's rate, which is also the rivals' format.

Run from the repository root; these need no GPU and less than an hour:

    python -m benchmarks.engine
    python -m benchmarks.engine --model vit_tiny_patch16_224 vit_small_patch16_224 --ablation column:19:1 column:37:8

Source: Salman et al. 2021, arXiv:2110.07719, and the preprocessor in github.com/MadryLab/smoothed-vit.
"""

import argparse
import copy
import itertools
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from timm.models import VisionTransformer
from torch import Tensor

from benchmarks.arguments import ablation_of
from benchmarks.ceilings import blocks_gflops, products_gflops, synchronise
from smoothcert.manifests.job import Model, NumberFormat, Preprocess
from smoothcert.pipeline.certify.costs import flop_of
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.shown import Masks, Shown
from smoothcert.workers.ablations.tokens import token_groups
from smoothcert.workers.networks.classifiers import build_classifier
from smoothcert.workers.votes.block_runs import run_plain, torch_dtype
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.smoothed_vit import SmoothedViT

_CROP = 224
_CLEAR_SHARE = {"bfloat16": 0.05, "float16": 0.05, "int8": 0.1}
_DENSE_BATCH = {"cpu": 8, "cuda": 256}  # images; 8 x 197 tokens stay in a core's cache


class Way(NamedTuple):
    """One way to vote: its name, how it computes votes [images, offsets], and for which offsets."""

    name: str
    compute: Callable[[], Any]
    offsets: Tensor
    flop_per_image: float  # of all offsets


class Rival:
    """timm's network on masked and normalised pixels, as both rivals need them."""

    def __init__(self, network: VisionTransformer, shown: Shown, dtype: torch.dtype, device: torch.device):
        self.network, self.dtype, self.device = network.to(device, dtype), dtype, device
        self.shown = shown
        mean, std = Preprocess().mean, Preprocess().std
        self._mean, self._std = (torch.tensor(value, device=device)[:, None, None] for value in (mean, std))
        self.tokens = {
            int(ablation): torch.from_numpy(tokens).to(device)
            for group in token_groups(shown, network.patch_embed.patch_size[0])
            for ablation, tokens in zip(group.ablations, group.tokens, strict=True)
        }

    def _masked(self, pixels_NCHW: Tensor, offset: int) -> Tensor:
        """Black outside the ablation, then normalised."""
        visible_1HW = torch.from_numpy(self.shown.visible(np.array([offset]))).to(self.device)
        return ((pixels_NCHW * visible_1HW - self._mean) / self._std).to(self.dtype)

    def _pixels(self, images: Tensor) -> Tensor:
        return images.to(self.device).permute(0, 3, 1, 2).float() / 255

    @torch.inference_mode()
    def dense(self, images: Tensor, offsets: Tensor) -> Tensor:
        """Every token of every ablation."""
        pixels_NCHW, columns = self._pixels(images), []
        for offset in offsets.tolist():
            batches = self._masked(pixels_NCHW, offset).split(_DENSE_BATCH[self.device.type])
            columns.append(torch.cat([self.network(batch).float() for batch in batches]))
        return torch.stack(columns, dim=1)

    @torch.inference_mode()
    def loop(self, images: Tensor, offsets: Tensor) -> Tensor:
        """The same, one masked image at a time."""
        return torch.cat([self.dense(image[None], offsets) for image in images])

    @torch.inference_mode()
    def published(self, images: Tensor, offsets: Tensor) -> Tensor:
        """Every token embedded, the class token and those shown computed; one offset at a time."""
        network, prefix = self.network, self.network.num_prefix_tokens
        pixels_NCHW, columns = self._pixels(images), []
        for offset in offsets.tolist():
            embedded = network._pos_embed(network.patch_embed(self._masked(pixels_NCHW, offset)))
            shown = torch.cat([torch.arange(prefix, device=self.device), prefix + self.tokens[offset]])
            tokens = network.norm(network.blocks(network.norm_pre(embedded[:, shown])))
            columns.append(network.forward_head(tokens).float())
        return torch.stack(columns, dim=1)


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    table = Table(title=f"{args.device}, {args.threads} threads, medians of {args.rounds} rounds")
    for heading in (
        "model",
        "ablation",
        "dtype",
        "way",
        "images/s",
        "tokens/s",
        "GFLOP/s",
        "of products",
        "ours faster",
    ):
        table.add_column(heading, justify="left" if heading in ("model", "ablation", "dtype", "way") else "right")
    records = []
    for model, ablation, dtype in itertools.product(args.model, args.ablation, args.dtype):
        record = measure(args, model, ablation, dtype)
        records.append(record)
        for name, way in record["ways"].items():
            cells = (f"{way['images_per_s']:.3f}", f"{way['tokens_per_s']:,.0f}", f"{way['gflops']:,.1f}")
            shares = (f"{way['of_products']:.1%}", "" if name == "ours" else f"{way['ours_faster']:.2f} x")
            table.add_row(model, ablation, dtype, name, *cells, *shares)
    console = Console(width=140)
    console.print(table)
    for record in records:
        notes = [
            f"products reach {record['ceiling_gflops']:,.1f} GFLOP/s with {record['ceiling_shape']}",
            f"those of its blocks, one after the other, {record['blocks_of_products']:.1%} of that",
        ]
        if record["peak_gib"] is not None:
            notes.append(f"peak memory {record['peak_gib']:.2f} GiB")
        console.print(f"{record['model']} {record['ablation']} {record['dtype']}: {'; '.join(notes)}", highlight=False)
    print(json.dumps(records))


def measure(args: argparse.Namespace, architecture: str, ablation: str, dtype: str) -> dict[str, Any]:
    """One model, one ablation, one number format: all ways in turns."""
    torch.manual_seed(0)
    device = torch.device(args.device)
    model = Model(architecture=architecture, checkpoint="none", classes=1000, dtype=dtype)
    ablations = ablations_of(ablation_of(ablation), _CROP, _CROP)
    network = build_classifier(model, _CROP).eval().requires_grad_(False)
    images = torch.randint(0, 256, (args.images, _CROP, _CROP, 3), dtype=torch.uint8)
    rival = Rival(copy.deepcopy(network), ablations, torch_dtype(dtype), device)
    pristine = copy.deepcopy(network)
    ours = SmoothedViT(network, ablations, preprocess=Preprocess(), format=Format.of(model, dtype), device=device)
    shown = [len(rival.tokens[offset]) for offset in range(ablations.num_ablations)]
    flop = sum(flop_of(network, count) for count in shown)
    dense_flop = ablations.num_ablations * flop_of(network, network.patch_embed.num_patches)
    some, few = _spread(ablations.num_ablations, args.published), _spread(ablations.num_ablations, args.dense)
    every = torch.arange(ablations.num_ablations)
    ways = [Way("ours", lambda: ours.votes(images).classes.cpu(), every, flop)]
    for other in args.against:
        engine = SmoothedViT(
            copy.deepcopy(pristine), ablations, preprocess=Preprocess(), format=Format.of(model, other), device=device
        )
        ways.append(Way(f"ours in {other}", lambda engine=engine: engine.votes(images).classes.cpu(), every, flop))  # type: ignore[misc]
    if device.type == "cuda" and dtype != "float32":
        unfused = copy.copy(ours)
        unfused.run_blocks = partial(run_plain, network.blocks[:-1])
        ways.append(Way("unfused", lambda: unfused.votes(images).classes.cpu(), every, flop))
    if len(some):
        ways.append(Way("published", lambda: rival.published(images, some).argmax(-1).cpu(), some, flop))
    if len(few):
        ways.append(Way("dense", lambda: rival.dense(images, few).argmax(-1).cpu(), few, dense_flop))
    if args.loop:
        alone = _spread(ablations.num_ablations, args.loop)
        ways.append(Way("loop", lambda: rival.loop(images, alone), alone, dense_flop))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    ours.votes(images)  # not measured: the first call fills caches and chooses kernels
    peak_gib = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None

    seconds = defaultdict[str, list[float]](list)
    products, blocks = list[dict[str, float]](), list[float]()
    for _ in range(args.rounds):
        products.append(products_gflops(torch_dtype(dtype), device))
        blocks.append(blocks_gflops(network.embed_dim, len(network.blocks), torch_dtype(dtype), device))
        for way in ways:
            synchronise(device)
            start = time.perf_counter()
            way.compute()
            share = len(way.offsets) / ablations.num_ablations
            seconds[way.name].append((time.perf_counter() - start) / share / args.images)
    _check_votes(ours, rival, pristine, images, Format.of(model, dtype), some[:64], few[:8])
    rates = {shape: statistics.median(each[shape] for each in products) for shape in products[0]}
    shape = max(rates, key=rates.__getitem__)
    tokens = sum(shown) + ablations.num_ablations * network.num_prefix_tokens
    return {
        "model": architecture,
        "ablation": ablation,
        "dtype": dtype,
        "images": args.images,
        "ceiling_gflops": rates[shape],
        "ceiling_shape": shape,
        "products_gflops": rates,
        "blocks_of_products": statistics.median(blocks) / rates[shape],
        "peak_gib": peak_gib,
        "ways": {
            way.name: {
                "images_per_s": 1 / statistics.median(seconds[way.name]),
                "tokens_per_s": tokens / statistics.median(seconds[way.name]),
                "gflops": way.flop_per_image / statistics.median(seconds[way.name]) / 1e9,
                "of_products": way.flop_per_image / statistics.median(seconds[way.name]) / 1e9 / rates[shape],
                "ours_faster": statistics.median(
                    theirs / our for our, theirs in zip(seconds["ours"], seconds[way.name], strict=True)
                ),
            }
            for way in ways
        },
    }


def _spread(offsets: int, wanted: int | None) -> Tensor:
    """Evenly spread offsets; all if `wanted` is None."""
    return torch.arange(offsets) if wanted is None else torch.linspace(0, offsets - 1, min(wanted, offsets)).long()


def _check_votes(
    ours: SmoothedViT,
    rival: Rival,
    network: VisionTransformer,
    images: Tensor,
    format: Format,
    some: Tensor,
    few: Tensor,
) -> None:
    """Check that both rivals vote as we do. Black tokens change votes, so dense votes must be those of `keep`."""
    if len(some):
        _check_equal(ours.logits(images[:4]).cpu()[:, some], rival.published(images[:4], some).cpu(), format.dtype)
    if len(few):
        keep = replace(format, keep_hidden=True)
        timed = Masks(rival.shown.visible(few.numpy()))
        kept = SmoothedViT(network, timed, preprocess=Preprocess(), format=keep, device=rival.device)
        _check_equal(kept.logits(images[:4]).cpu(), rival.dense(images[:4], few).cpu(), format.dtype)


def _check_equal(one_NAK: Tensor, other_NAK: Tensor, dtype: str) -> None:
    top_NA2 = one_NAK.topk(2, dim=-1).values
    clear = _CLEAR_SHARE[dtype] * one_NAK.abs().max().item() if dtype in _CLEAR_SHARE else 1e-4
    decided_NA = top_NA2[..., 0] - top_NA2[..., 1] > clear
    differ = (one_NAK.argmax(-1) != other_NAK.argmax(-1)) & decided_NA
    assert decided_NA.any(), "no vote is clear, so nothing is compared"
    assert not differ.any(), f"{int(differ.sum())} of {int(decided_NA.sum())} clear votes differ"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time the engine against products alone and against two rivals.")
    parser.add_argument("--model", nargs="+", default=["vit_tiny_patch16_224"], help="timm VisionTransformers")
    parser.add_argument(
        "--ablation", nargs="+", default=["column:19:1"], help="KIND:SIZE:STRIDE or mask:THREAT:PER_AXIS, in pixels"
    )
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=get_args(NumberFormat))
    parser.add_argument("--against", nargs="*", default=[], choices=get_args(NumberFormat), help="our other formats")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--published", type=int, help="offsets that the published way computes; all by default")
    parser.add_argument("--dense", type=int, default=8, help="offsets that the dense way computes")
    parser.add_argument("--loop", type=int, default=8, help="offsets that a loop over single images computes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
