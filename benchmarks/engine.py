"""How fast the engine votes, against computing every token and against the published way to drop them.

    ours       SmoothedViT.votes
    published  Salman et al.: one offset at a time over all images; every token is embedded, then those shown are kept
    dense      timm's model(x) on masked images, every token through every block; some offsets, scaled to all

The two rivals are timm's own modules. Paths take turns and the fastest turn of each counts, so that a busy
machine slows all alike. Votes must agree where ours have a margin above 1e-4 (float32) or 0.05 of the logits' scale:
those of `drop` with the published path, those of `keep` with the dense one. GFLOP/s count what a path needs, not the
tokens that the published one embeds in vain.

Run from the repository root: python -m benchmarks.engine
Source: Salman et al. 2021, arXiv:2110.07719, and the preprocessor in github.com/MadryLab/smoothed-vit.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from timm.models import VisionTransformer
from torch import Tensor

from manifests.job import Ablation, Model, Preprocess
from pipeline.costs import flop_of
from workers.classifiers import build_classifier
from workers.geometry import Geometry
from workers.smoothed_vit import SmoothedViT

_CROP = 224
_DENSE_OFFSETS = 32  # the dense path computes so many of an image's ablations
_DENSE_BATCH = 8  # images; 8 x 197 tokens stay in a core's cache


class Path(NamedTuple):
    """One way to vote: what it is called, how it computes [images, offsets, classes], and of which share."""

    name: str
    logits: Callable[[], Tensor]
    offsets: Tensor
    flop_per_image: float  # of all offsets


class Rival:
    """timm's network on masked and normalised pixels, as both rivals need them."""

    def __init__(self, network: VisionTransformer, geometry: Geometry, preprocess: Preprocess, dtype: torch.dtype):
        self.network = network.to(dtype)
        self.dtype = dtype
        self.visible_AHW = torch.from_numpy(geometry.rows[:, None, :, None] & geometry.columns[None, :, None, :])
        self.visible_AHW = self.visible_AHW.flatten(0, 1)
        self.mean, self.std = (torch.tensor(value)[:, None, None] for value in (preprocess.mean, preprocess.std))
        token_px = network.patch_embed.patch_size[0]
        groups = geometry.token_groups(token_px)
        self.tokens = {
            int(ablation): torch.from_numpy(tokens)
            for group in groups
            for ablation, tokens in zip(group.ablations, group.tokens, strict=True)
        }

    def masked(self, pixels_NCHW: Tensor, offset: int) -> Tensor:
        """Black outside the ablation, then normalised."""
        return ((pixels_NCHW * self.visible_AHW[offset] - self.mean) / self.std).to(self.dtype)

    @torch.inference_mode()
    def dense(self, images: Tensor, offsets: Tensor) -> Tensor:
        """Every token of every ablation."""
        pixels_NCHW = images.permute(0, 3, 1, 2).float() / 255
        columns = []
        for offset in offsets.tolist():
            batches = self.masked(pixels_NCHW, offset).split(_DENSE_BATCH)
            columns.append(torch.cat([self.network(batch).float() for batch in batches]))
        return torch.stack(columns, dim=1)

    @torch.inference_mode()
    def published(self, images: Tensor, offsets: Tensor) -> Tensor:
        """Every token embedded, the class token and those shown computed; one offset at a time."""
        network, prefix = self.network, self.network.num_prefix_tokens
        pixels_NCHW = images.permute(0, 3, 1, 2).float() / 255
        columns = []
        for offset in offsets.tolist():
            embedded = network._pos_embed(network.patch_embed(self.masked(pixels_NCHW, offset)))
            shown = torch.cat([torch.arange(prefix), prefix + self.tokens[offset]])
            tokens = network.norm(network.blocks(network.norm_pre(embedded[:, shown])))
            columns.append(network.forward_head(tokens).float())
        return torch.stack(columns, dim=1)


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = Model(architecture=args.model, checkpoint="none", classes=1000, dtype=args.dtype)
    preprocess = Preprocess(crop=_CROP)
    geometry = Geometry.of(Ablation(kind="column", size=args.size, stride=args.stride), _CROP, _CROP)
    network = build_classifier(model, _CROP).eval().requires_grad_(False)
    images = torch.randint(0, 256, (args.images, _CROP, _CROP, 3), dtype=torch.uint8)

    unused = copy.deepcopy(network)
    rival = Rival(copy.deepcopy(network), geometry, preprocess, getattr(torch, args.dtype))
    shown = [len(rival.tokens[offset]) for offset in range(geometry.num_ablations)]
    dense_flop = geometry.num_ablations * flop_of(network, network.patch_embed.num_patches)
    flop = sum(flop_of(network, count) for count in shown)
    ours = SmoothedViT(network, geometry, preprocess=preprocess, model=model, device=torch.device("cpu"))
    every = torch.arange(geometry.num_ablations)
    some = torch.randperm(geometry.num_ablations)[:_DENSE_OFFSETS].sort().values
    paths = [
        Path("ours", lambda: ours.logits(images), every, flop),
        Path("published", lambda: rival.published(images, every), every, flop),
        Path("dense", lambda: rival.dense(images, some), some, dense_flop),
    ]

    seconds = {path.name: float("inf") for path in paths}
    logits = {}
    ceiling = 0.0
    for _ in range(args.repeats):
        ceiling = max(ceiling, _matrix_product_gflops(args.dtype))
        for path in paths:
            start = time.perf_counter()
            logits[path.name] = path.logits()
            elapsed = time.perf_counter() - start
            seconds[path.name] = min(seconds[path.name], elapsed * len(every) / len(path.offsets))
    _check_votes(logits["ours"], logits["published"], args.dtype)
    # Black tokens change a vote, so dense votes are not those of dropped tokens: the engine's `keep` must give them.
    keep = model.model_copy(update={"masked_tokens": "keep"})
    timed = Geometry(geometry.rows, geometry.columns[some.numpy()])
    kept = SmoothedViT(unused, timed, preprocess=preprocess, model=keep, device=torch.device("cpu"))
    _check_votes(kept.logits(images), logits["dense"], args.dtype)
    _report(args, paths, seconds, ceiling, len(every))


def _check_votes(one_NAK: Tensor, other_NAK: Tensor, dtype: str) -> None:
    top_NA2 = one_NAK.topk(2, dim=-1).values
    clear = 1e-4 if dtype == "float32" else 0.05 * one_NAK.abs().max().item()
    decided_NA = top_NA2[..., 0] - top_NA2[..., 1] > clear
    differ = (one_NAK.argmax(-1) != other_NAK.argmax(-1)) & decided_NA
    assert decided_NA.any(), "no vote is clear, so nothing is compared"
    assert not differ.any(), f"{int(differ.sum())} of {int(decided_NA.sum())} clear votes differ"


def _matrix_product_gflops(dtype: str, side: int = 2048) -> float:
    left, right = torch.randn(2, side, side).to(getattr(torch, dtype))
    left @ right
    start = time.perf_counter()
    for _ in range(3):
        left @ right
    return 3 * 2 * side**3 / (time.perf_counter() - start) / 1e9


def _report(
    args: argparse.Namespace, paths: list[Path], seconds: dict[str, float], ceiling: float, num_ablations: int
) -> None:
    table = Table(title=f"{args.model}, columns b={args.size} s={args.stride}, {args.dtype}, {args.threads} threads")
    for heading in ("path", "ms an image", "ablations/s", "GFLOP/s", "times ours"):
        table.add_column(heading, justify="left" if heading == "path" else "right")
    record: dict[str, object] = {**vars(args), "ceiling_gflops": round(ceiling, 1)}
    for path in paths:
        per_image = seconds[path.name] / args.images
        row = {
            "ms_per_image": round(1e3 * per_image, 2),
            "ablations_per_s": round(num_ablations / per_image, 1),
            "gflops": round(path.flop_per_image / per_image / 1e9, 1),
            "times_ours": round(seconds[path.name] / seconds["ours"], 3),
        }
        table.add_row(path.name, *(f"{value:,}" for value in row.values()))
        record[path.name] = row
    record["dense_offsets"] = len(paths[-1].offsets)
    console = Console()
    console.print(table)
    console.print(
        f"dense: {len(paths[-1].offsets)} of {num_ablations} offsets timed, scaled to all.  "
        f"Matrix products of 2048 x 2048 reach {ceiling:.1f} GFLOP/s."
    )
    print(json.dumps(record))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time the engine against the dense and the published path.")
    parser.add_argument("--model", default="vit_tiny_patch16_224", help="a timm VisionTransformer")
    parser.add_argument("--size", type=int, default=19, help="width of the columns, pixels")
    parser.add_argument("--stride", type=int, default=1, help="distance between offsets, pixels")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    return parser.parse_args()


if __name__ == "__main__":
    main()
