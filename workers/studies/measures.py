"""What a kind of study does with images; each kind has a file of its own name in this room.

    settings of a kind (manifests/studies.py) -> `kind_of` -> Measures, with the run's network loaded

Not covered: reading the images and writing the rows (worker.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smoothcert.manifests.job import Job
from smoothcert.manifests.studies import Study
from smoothcert.workers.networks.classifiers import load_classifier
from smoothcert.workers.votes.smoothed import Smoothed
from smoothcert.workers.votes.voters import load_voter


class Studied(NamedTuple):
    """Images that are measured together.

    Attributes:
        pixels: [images, crop, crop, channels] uint8, on the CPU.
        labels: None where an image has none.
        seeds: one for each image, from the study's seed and the image's SHA-256. An attack draws for all images of a
            batch together, from the first of these.
        votes: [images, ablations] int64, in offset order; None if the kind does not need them.
    """

    pixels: Tensor
    labels: list[int | None]
    seeds: list[int]
    votes: NDArray[np.int64] | None


class Measures(Protocol):
    """Measures images."""

    @property
    def forwards(self) -> int:
        """How often images went through the network so far; it grows as long as there is progress."""

    def measure(self, images: Studied) -> list[dict[str, Any]]:
        """The columns of each image."""


@dataclass(frozen=True)
class Loader:
    """Loads the network of a run, as often as a kind needs it.

    Attributes:
        job: of the run.
        checkpoint: a local file with its weights.
        checkpoint_key: the state dict to take.
        device: where to compute.
        allow_code: whether code that the job names may run.
    """

    job: Job
    checkpoint: Path
    checkpoint_key: str | None
    device: torch.device
    allow_code: bool = False

    def network(self) -> nn.Module:
        """The network in float32 and in evaluation mode, on the CPU.

        Raises:
            RequestError: the weights are not that network's.
        """
        job = self.job
        return load_classifier(
            job.model, job.preprocess, self.checkpoint, self.checkpoint_key, allow_code=self.allow_code
        )

    def voter(self) -> Smoothed:
        """The network as it votes in a run; errors as for `network`."""
        return load_voter(self.job, self.checkpoint, self.checkpoint_key, self.device, allow_code=self.allow_code)


class Kind(NamedTuple):
    """A kind of study.

    Attributes:
        columns: its columns, after those that all studies have (worker.py).
        needs_votes: whether images must have votes.
        measures: makes its Measures, with settings and loader.
    """

    columns: pa.Schema
    needs_votes: bool
    measures: Callable[[Any, Loader], Measures]


def kind_of(settings: Study) -> Kind:
    """The kind that settings belong to."""
    return _kind(settings.kind)


def columns_of(kind: type[Study]) -> pa.Schema:
    """The columns of a kind, after those that all studies have."""
    return _kind(kind.kind).columns


def _kind(name: str) -> Kind:
    kind: Kind = import_module(f"smoothcert.workers.studies.{name.replace('-', '_')}").KIND
    return kind
