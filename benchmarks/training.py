"""How fast a network learns under ablations: hidden tokens left out, against every token computed.

    drop       AblatedForward: an offset for each image, groups of equal token count, hidden tokens left out
    published  Salman et al.: one offset for the whole batch; every token is embedded, then those shown are kept;
               the mean over one offset for each pixel of a token's width
    keep       AblatedForward with every token, hidden pixels black
    dense      timm's model(x) on masked images: every token through every block

A step is forward, backward and optimizer, on pixels in memory; all ways have the same loss and optimizer. They take
turns; medians of the rounds count, and the ratio to a rival is the median of the rounds' ratios, so a busy machine
slows all alike. "as fast" is how many images `drop` learns while the other learns one. `augment` is reading
and augmenting alone, without a network.

Run from the repository root:

    python -m benchmarks.training
    python -m benchmarks.training --set model.architecture=vit_small_patch16_224 --threads 2
"""

import argparse
import copy
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from timm.models import VisionTransformer
from torch import Tensor

from benchmarks.ceilings import synchronise
from smoothcert.manifests.training import Training, load_training
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.training.augmentation import Augment, Draws
from smoothcert.workers.training.recipe import kinds_of, optimizer_of, starting_network
from smoothcert.workers.votes.ablated_forward import AblatedForward

_EXAMPLE = Path(__file__).resolve().parents[1] / "manifests" / "examples" / "cifar10-train.yaml"


class Learner:
    """A network, its optimizer, and one way to compute the loss of a batch."""

    def __init__(self, training: Training, network: VisionTransformer, device: torch.device) -> None:
        self.training, self.network, self.device = training, network.to(device).train(), device
        self._optimizer = optimizer_of(training, network)

    def step(self, loss: Callable[[Tensor, Tensor, Tensor], None], *batch: Tensor) -> None:
        """One update of the weights; `loss` computes gradients of pixels, labels and ablations."""
        self._optimizer.zero_grad()
        loss(*batch)
        self._optimizer.step()


class Ours(Learner):
    def __init__(
        self, training: Training, network: VisionTransformer, device: torch.device, *, keep_hidden: bool
    ) -> None:
        super().__init__(training, network, device)
        self._forward = AblatedForward(network, kinds_of(training), training.preprocess, keep_hidden=keep_hidden)
        self._forward.to_device(device)

    def loss(self, pixels_NCHW: Tensor, labels: Tensor, ablations: Tensor) -> None:
        for group in self._forward.groups(ablations, at_most=self.training.execution.images_per_forward):
            logits_SK = self._forward(pixels_NCHW, group)
            (F.cross_entropy(logits_SK, labels[group.images], reduction="sum") / len(labels)).backward()


class Rival(Learner):
    """timm's own forward on pixels that are masked and normalised."""

    def __init__(self, training: Training, network: VisionTransformer, device: torch.device) -> None:
        super().__init__(training, network, device)
        shown = kinds_of(training)[0]
        self._visible_AHW = torch.from_numpy(shown.visible(np.arange(shown.num_ablations))).to(device)
        side = network.patch_embed.patch_size[0]
        self._shown_AT = self._visible_AHW.unfold(1, side, side).unfold(2, side, side).flatten(3).any(3).flatten(1)
        preprocess = training.preprocess
        self._mean, self._std = torch.tensor([preprocess.mean, preprocess.std], device=device)[:, :, None, None]

    def _masked(self, pixels_NCHW: Tensor, ablations: Tensor) -> Tensor:
        return (pixels_NCHW * self._visible_AHW[ablations][:, None] - self._mean) / self._std

    def dense(self, pixels_NCHW: Tensor, labels: Tensor, ablations: Tensor) -> None:
        F.cross_entropy(self.network(self._masked(pixels_NCHW, ablations)), labels).backward()

    def published(self, pixels_NCHW: Tensor, labels: Tensor, ablations: Tensor) -> None:
        network, one = self.network, ablations[:1]
        prefix = torch.ones(network.num_prefix_tokens, dtype=torch.bool, device=self.device)
        embedded = network._pos_embed(network.patch_embed(self._masked(pixels_NCHW, one.expand(len(labels)))))
        tokens = network.blocks(network.norm_pre(embedded[:, torch.cat([prefix, self._shown_AT[one[0]]])]))
        F.cross_entropy(network.forward_head(network.norm(tokens)), labels).backward()


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    training = load_training(args.training, args.overrides)
    record = measure(training, torch.device(args.device), args.rounds)
    table = Table(title=f"{args.device}, {args.threads} threads, medians of {args.rounds} rounds")
    for heading in ("way", "images/s", "drop is as fast"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name, way in record["ways"].items():
        ratio = "" if name in ("drop", "augment") else f"{way['drop_is_as_fast']:.2f} x"
        table.add_row(name, f"{way['images_per_s']:,.0f}", ratio)
    Console(width=100).print(table)
    print(json.dumps({"device": args.device, "threads": args.threads, **record}))


def measure(training: Training, device: torch.device, rounds: int) -> dict[str, Any]:
    """Measure all ways in turns."""
    torch.manual_seed(0)
    network = starting_network(training, AnyStore(training.storage))
    drop, keep = (Ours(training, copy.deepcopy(network), device, keep_hidden=hidden) for hidden in (False, True))
    rivals = [Rival(training, copy.deepcopy(network), device) for _ in range(2)]
    size, crop, offsets = training.batch_size, training.preprocess.crop, kinds_of(training)[0].num_ablations
    images = torch.randint(0, 256, (size, crop, crop, 3), dtype=torch.uint8)
    labels = torch.randint(0, training.model.classes, (size,)).to(device)
    augment, draws = Augment(training), Draws.of_epoch(0, 0, size)
    pixels_NCHW = images.to(device).permute(0, 3, 1, 2).float() / 255
    each_offset = [torch.full((size,), offset).to(device) for offset in range(network.patch_embed.patch_size[0])]
    seconds = defaultdict[str, list[float]](list)
    for turn in range(rounds + 1):
        batch = (pixels_NCHW, labels, torch.randint(0, offsets, (size,)).to(device))
        ways: dict[str, Callable[[], Any]] = {
            "drop": lambda batch=batch: drop.step(drop.loss, *batch),
            "published": lambda: [
                rivals[0].step(rivals[0].published, pixels_NCHW, labels, offset) for offset in each_offset
            ],
            "keep": lambda batch=batch: keep.step(keep.loss, *batch),
            "dense": lambda batch=batch: rivals[1].step(rivals[1].dense, *batch),
            "augment": lambda: augment.batch(images.numpy(), draws),
        }
        for name, way in ways.items():
            synchronise(device)
            start = time.perf_counter()
            way()
            synchronise(device)
            if turn:  # the first turn is not measured: it fills caches and chooses kernels
                steps = len(each_offset) if name == "published" else 1
                seconds[name].append((time.perf_counter() - start) / (steps * size))
    return {
        "model": training.model.model_dump(mode="json"),
        "ablation": [ablation.model_dump(mode="json") for ablation in training.ablation],
        "batch_size": size,
        "ways": {
            name: {
                "images_per_s": 1 / statistics.median(values),
                "drop_is_as_fast": statistics.median(
                    theirs / ours for ours, theirs in zip(seconds["drop"], values, strict=True)
                ),
            }
            for name, values in seconds.items()
        },
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time learning with hidden tokens left out against all tokens.")
    parser.add_argument("training", nargs="?", type=Path, default=_EXAMPLE, help="training file; its first ablation")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY.PATH=VALUE")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


if __name__ == "__main__":
    main()
