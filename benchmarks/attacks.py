"""Success rates of attacks with patches, at equal numbers of forward passes.

    python -m benchmarks.attacks RUN --patch 4 --images 200 --forwards 300

    ours           smoothcert attack: APGD with both losses, then Square, at the weakest places, then at a random one
    random noise   a random patch at a random place, once for each forward pass
    Levine-Feizi   150 steps of 0.05 along the sign of the gradient of the mean softmax, at random places

All see the same uncertified images, chosen with a seed. A patch counts if its 8-bit version changes the votes. Backward
passes are not counted, so random noise costs less time.

Source of the last: Levine & Feizi 2020, arXiv:2002.10733, section 5.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smoothcert.manifests.studies import PatchAttack
from smoothcert.pipeline.statistics import mcnemar, share_interval
from smoothcert.pipeline.studies.selection import Choice, Only, choose, voted_images
from smoothcert.workers.attacks.patched_votes import PatchedVotes
from smoothcert.workers.attacks.patches import Voted
from smoothcert.workers.iteration import batched
from smoothcert.workers.runs.run import Run, open_run
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.studies.measures import Loader, Studied
from smoothcert.workers.studies.patch_attack import PatchAttackMeasures
from smoothcert.workers.tars.fetched import fetched
from smoothcert.workers.tars.pixels import PixelReader

_TOGETHER = 16
_STEPS, _STEP = 150, 0.05  # of Levine & Feizi
_PLACES = 5


def images_of(run: Run, patch: int, count: int, seed: int) -> Voted:
    """Uncertified images of a run, drawn with a seed."""
    job = run.job
    chosen = choose(voted_images(run, (patch, patch), Only.uncertified), Choice(count, seed)).images
    reader = PixelReader(job.images, job.preprocess, job.model.classes, _TOGETHER, threads=1)
    pixels = list[Tensor]()
    for task in run.tasks:
        if task.index in chosen:
            with fetched(task.shard, AnyStore(job.storage)) as shard:
                batches = reader.batches(shard, only=frozenset(chosen[task.index]))
                pixels += [batch.pixels for batch in batches if batch.pixels is not None]
    rows = run.images(["shard", "index", "prediction"]).to_pylist()
    names = {task.shard.name: task.index for task in run.tasks}
    there = [place for place, row in enumerate(rows) if row["index"] in chosen.get(names[row["shard"]], ())]
    predictions = np.array([rows[place]["prediction"] for place in there])
    return Voted(torch.cat(pixels), run.votes()[there].astype(np.int64), predictions)


class Contest:
    """Attacks on the same network, images and patch."""

    def __init__(self, run: Run, loader: Loader, patch: int, forwards: int) -> None:
        self._patch, self._forwards, self._side = patch, forwards, run.job.preprocess.crop
        steps = forwards // _PLACES // 2 - 6  # two losses, each with a first pass, and Square with the rest
        queries = forwards // _PLACES - 2 * (steps + 1) - 1
        settings = PatchAttack(
            height=patch, width=patch, places=_PLACES - 1, random_places=1, steps=steps, queries=queries
        )
        self._ours = PatchAttackMeasures(settings, loader)

    def ours(self, images: Voted, seed: int) -> NDArray[np.bool_]:
        """What `smoothcert attack` does."""
        seeds = [seed * 1_000_003 + number for number in range(len(images.pixels))]
        rows = self._ours.measure(Studied(images.pixels, [None] * len(seeds), seeds, images.votes))
        assert max(row["forwards"] for row in rows) <= self._forwards
        return np.array([row["fell"] for row in rows])

    def random_noise(self, images: Voted, seed: int) -> NDArray[np.bool_]:
        """A new place and a new patch each time."""
        fell = np.zeros(len(images.pixels), bool)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(self._forwards):
            module, standing = self._module(images, ~fell, generator)
            with torch.inference_mode():
                module(torch.rand(module.patches.shape, generator=generator))
            fell[standing[module.fell.numpy()]] = True
        return fell

    def levine_feizi(self, images: Voted, seed: int) -> NDArray[np.bool_]:
        """Some steps at each random place."""
        fell = np.zeros(len(images.pixels), bool)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(self._forwards // _STEPS):
            module, standing = self._module(images, ~fell, generator)
            classes = torch.from_numpy(images.predictions[standing])
            patches = torch.rand(module.patches.shape, generator=generator)
            for _ in range(_STEPS):
                patches.requires_grad_()
                # The sign of the gradient of -log(mean softmax) is that of the class's own softmaxes, turned round.
                own = module(patches).gather(1, classes[:, None]).sum()
                (gradient,) = torch.autograd.grad(own, patches)
                patches = (patches.detach() - _STEP * gradient.sign()).clamp(0, 1)
            fell[standing[module.fell.numpy()]] = True
        return fell

    def _module(
        self, images: Voted, standing: NDArray[np.bool_], generator: torch.Generator
    ) -> tuple[PatchedVotes, NDArray[np.int64]]:
        """The module of the images that stand, each with a random place; and which images these are."""
        there = np.flatnonzero(standing)
        corners = torch.randint(0, self._side - self._patch + 1, (len(there), 2), generator=generator).numpy()
        return self._ours.attacker.module(images.part(there), corners), there


def in_batches(attack: Callable[[Voted, int], NDArray[np.bool_]], images: Voted) -> Iterator[NDArray[np.bool_]]:
    """An attack on a few images at a time."""
    for seed, places in enumerate(batched(range(len(images.pixels)), _TOGETHER)):
        yield attack(images.part(np.array(places)), seed)


def main() -> None:
    """Print a line for each attack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--patch", type=int, default=4)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--forwards", type=int, default=2 * _STEPS)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    run = open_run(asked.run)
    images = images_of(run, asked.patch, asked.images, asked.seed)
    store = AnyStore(run.job.storage)
    with store.local(run.record.checkpoint.url or run.job.model.checkpoint) as checkpoint:
        loader = Loader(run.job, checkpoint, run.record.checkpoint.key, torch.device("cpu"))
        contest = Contest(run, loader, asked.patch, asked.forwards)
    results = {
        name: np.concatenate(list(in_batches(attack, images)))
        for name, attack in (
            ("ours", contest.ours),
            ("random noise", contest.random_noise),
            ("Levine-Feizi", contest.levine_feizi),
        )
    }
    ours = results["ours"]
    for name, fell in results.items():
        low, high = share_interval(int(fell.sum()), len(fell))
        against = mcnemar(int((ours & ~fell).sum()), int((fell & ~ours).sum()))
        print(
            f"{name:13} {fell.sum():4} of {len(fell)} fell: {100 * fell.mean():5.1f} % "
            f"({100 * low:.1f} to {100 * high:.1f} %), McNemar against ours: p = {against:.2g}"
        )


if __name__ == "__main__":
    main()
