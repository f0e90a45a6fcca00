"""Which images a study measures: drawn with a seed. A larger sample holds the images of a smaller one.

Not covered: what is measured about them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.console.looks import number_of
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.runs.job_rules import JobRules
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.shard_task import ShardTask
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.tars.fetched import naming
from smoothcert.workers.tars.tar_headers import read_tar

Candidates = Iterator[tuple[int, NDArray[np.int64]]]
"""The index of a shard, and the positions of its images that may be chosen."""


class Only(StrEnum):
    """Which images of a run are attacked."""

    uncertified = "uncertified"
    certified = "certified"
    all = "all"


@dataclass(frozen=True)
class Choice:
    """How images are chosen.

    Attributes:
        limit: how many at most; None: all.
        seed: of the draw, and of all that is random about an image.
        only: certified or uncertified ones; None if certificates do not matter.
    """

    limit: int | None
    seed: int
    only: Only | None = None

    def as_json(self) -> dict[str, Any]:
        """As study.json has it."""
        return {"limit": self.limit, "seed": self.seed} | ({} if self.only is None else {"only": self.only.value})


@dataclass(frozen=True)
class Chosen:
    """The images of a study.

    Attributes:
        images: positions in each shard, by its index, ascending.
        candidates: among how many they were chosen.
    """

    images: Mapping[int, tuple[int, ...]]
    candidates: int


def choose(candidates: Candidates, choice: Choice) -> Chosen:
    """Draw the images. A number is drawn for each from seed, shard and position alone; the smallest are chosen."""
    shards, positions, draws = list[NDArray[np.int64]](), list[NDArray[np.int64]](), list[NDArray[np.float64]]()
    for shard, there in candidates:
        drawn = np.random.default_rng([choice.seed, shard]).random(int(there.max(initial=-1)) + 1)
        shards.append(np.full(len(there), shard))
        positions.append(there)
        draws.append(drawn[there])
    if not shards or not (total := sum(map(len, shards))):
        which = f"{choice.only.value} images" if choice.only in (Only.certified, Only.uncertified) else "images"
        raise RequestError(f"there are no {which} to choose from")
    order = np.argsort(np.concatenate(draws), kind="stable")[: choice.limit]
    chosen: dict[int, list[int]] = {}
    for shard, position in zip(np.concatenate(shards)[order], np.concatenate(positions)[order], strict=True):
        chosen.setdefault(int(shard), []).append(int(position))
    return Chosen({shard: tuple(sorted(chosen[shard])) for shard in sorted(chosen)}, total)


def voted_images(run: Run, patch: tuple[int, int], only: Only) -> Candidates:
    """The images of a complete run that have votes, or those that are certified against a patch, or are not.

    Raises:
        RequestError: the run is not complete, or the patch is larger than the image.
    """
    if not run.complete():
        missing = number_of(len(run.missing()), "shard")
        raise RequestError(f"{run.url}: the run is not complete ({missing} missing); finish it first")
    rules = JobRules(run.job)
    rules.refuse(Threat(*patch))
    for task, file in zip(run.tasks, read_published(run, ["index", "votes"]), strict=True):
        rows = file.rows.filter(file.rows["votes"].is_valid())
        there = rows["index"].to_numpy().astype(np.int64)
        if only is not Only.all and len(rows):
            certified = rules.answer(rules.count(rows), Threat(*patch)).certified
            there = there[certified if only is Only.certified else ~certified]
        yield task.index, there


def all_images(run: Run) -> Candidates:
    """All images of the tars, whether they have votes or not; tars without an index file are read to count them.

    Raises:
        ShardError: a tar cannot be read whole.
    """
    for task in run.tasks:
        yield task.index, np.arange(_count(run, task))


def _count(run: Run, task: ShardTask) -> int:
    if task.known_images is not None:
        return task.known_images
    with AnyStore(run.job.storage).local(task.shard.url) as tar, naming(task.shard):
        return len(read_tar(tar, run.job.images).images)
