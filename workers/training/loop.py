"""The loop that turns a training file into weights.

    epoch   draw for each image -> batches -> steps -> validation -> checkpoint

The learning rate depends only on the progress of the training, and each step seeds the generators again. So a
checkpoint at the end of an epoch is all that a training needs to continue.

Ray is not needed. Not covered: a step (learner.py); how a training looks in storage (training_run.py); what the
training file means in timm's terms (recipe.py); starting several processes (pipeline/).
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from smoothcert.manifests.job import Images
from smoothcert.manifests.shards import Shard, find_shards
from smoothcert.manifests.training import Training
from smoothcert.workers.networks.checkpoint_files import require_checkpoint
from smoothcert.workers.storage.store import AnyStore, Store, sha256_of
from smoothcert.workers.training.augmentation import Augment, seed_everything
from smoothcert.workers.training.curves import Figures
from smoothcert.workers.training.data import (
    LabelledImages,
    OneOf,
    count_images,
    read_images,
    refuse_idle,
    refuse_losses,
)
from smoothcert.workers.training.epochs import Batch, CachedEpochs, StreamedEpoch, batches_of
from smoothcert.workers.training.learner import EpochSums, Learner
from smoothcert.workers.training.processes import Peers
from smoothcert.workers.training.training_run import TrainingRun
from smoothcert.workers.training.validation import Validated, Validator
from smoothcert.workers.votes.smoothed import without_tf32

_STEPS_PER_REPORT = 10  # reading the loss from a GPU makes it wait


class Step(NamedTuple):
    """The progress of an epoch.

    Attributes:
        epoch: from 1.
        images: images of this epoch that the network has learned from.
        total: images of the epoch.
        loss: mean loss of `images`.
    """

    epoch: int
    images: int
    total: int
    loss: float


class _Start(NamedTuple):
    """Where a training continues; `counts` are the images of each tar, None if the images are cached."""

    counts: list[int] | None
    epochs_done: int
    complete: bool


class _Coming(NamedTuple):
    """The batches of cached images that are still to come, of all epochs, and their number in an epoch."""

    batches: Iterator[Batch]
    per_epoch: int


def train(training: Training) -> Iterator[Step | Validated | Figures]:
    """Train, or continue where an earlier call stopped; a complete training is not repeated.

    Call it in each process; all share the work of each step. Only the first publishes.

    Raises:
        RequestError: the training file does not fit the model, the images, or the content of the output.
        RunError: too many images are unusable, or the loss is not finite.
    """
    peers, store = Peers(), AnyStore(training.storage)
    run = TrainingRun(training, store)
    shards = find_shards(training.images, store)
    identity = training.identity(shards, _checkpoint_sha256(training, store))
    start = peers.call_in_first(lambda: _find_start(training, run, identity, shards, store))
    if start.complete:
        yield from run.curve()[-1:]
        return
    trainer = _Trainer(training, shards, start.counts, store, peers)
    if peers.is_first:
        run.begin(identity, start.counts)  # only now: a file with a mistake must not take the name
    if start.epochs_done:
        trainer.load_state(run.load(start.epochs_done))
    if start.epochs_done == training.epochs:  # killed before the weights were published
        yield trainer.curve[-1]
    for epoch in range(start.epochs_done, training.epochs):
        yield from trainer.epoch(epoch)
        figures = trainer.curve[-1]
        last = figures.epoch == training.epochs
        if peers.is_first and (last or figures.epoch % training.checkpoint_every_epochs == 0):
            run.publish_checkpoint(trainer.state(), trainer.curve)
        yield figures
    if peers.is_first:
        run.finish(trainer.weights(), trainer.curve)


def _find_start(
    training: Training, run: TrainingRun, identity: dict[str, Any], shards: Sequence[Shard], store: Store
) -> _Start:
    run.refuse_others(identity)
    counts: list[int] | None = None
    if not training.cache:
        counts = run.image_counts() or count_images(shards, training.images, store)
    return _Start(counts, run.epochs_done(), run.is_complete())


def _checkpoint_sha256(training: Training, store: Store) -> str | None:
    if training.model.checkpoint is None:
        return None
    require_checkpoint(training.model.checkpoint, store)
    with store.local(training.model.checkpoint) as file:
        return sha256_of(file)


class _Trainer:
    """The epochs of one process: its images, its learner and its validation."""

    def __init__(
        self, training: Training, shards: tuple[Shard, ...], counts: list[int] | None, store: Store, peers: Peers
    ) -> None:
        self._training, self._shards, self._counts, self._store = training, shards, counts, store
        self._peers, self._process = peers, OneOf(peers.rank, peers.size)
        wants_gpu = training.execution.gpus_per_worker != 0 and torch.cuda.is_available()
        self._device = torch.device("cuda" if wants_gpu else "cpu")
        self.curve: list[Figures] = []
        without_tf32()
        seed_everything(training.seed)
        self._learner = Learner(training, store, peers, self._device)
        self._augment = Augment(training)
        self._cached = self._read_all() if training.cache else None
        if self._cached is None:
            refuse_idle(len(shards), training)
        self._coming: _Coming | None = None
        self._images = len(self._cached.labels) if self._cached is not None else sum(counts or ())
        self._validator = self._make_validator()

    def _read_all(self) -> LabelledImages:
        """All images of the training, in each process."""
        images = self._read(self._shards, self._training.images, OneOf())
        refuse_losses("images", images.left_out, images.left_out + len(images.labels), images.problem)
        return images

    def _make_validator(self) -> Validator | None:
        """A validator for this process's part of the held-out images."""
        if self._training.validation is None:
            return None
        held_out = self._training.validation.images
        own = self._read(find_shards(held_out, self._store), held_out, self._process)
        counts_here = [own.left_out, own.left_out + len(own.labels)]
        left_out, seen = map(int, self._peers.sum_over_all(counts_here, self._device))
        refuse_losses("validation.images", left_out, seen, own.problem)
        return Validator(self._training, own, self._peers, self._device)

    def _read(self, shards: Sequence[Shard], images: Images, process: OneOf) -> LabelledImages:
        training = self._training
        return read_images(shards, images, training.preprocess, training.model.classes, self._store, process)

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on."""
        return self._learner.state() | {"curve": [figures.as_json() for figures in self.curve]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._learner.load_state(state)
        self.curve = [Figures(**figures) for figures in state["curve"]]

    def weights(self) -> dict[str, Tensor]:
        """The weights to publish, on the CPU."""
        return self._learner.weights()

    def epoch(self, epoch: int) -> Iterator[Step | Validated]:
        """Learn from each image once, validate, and add the figures to the curve.

        Args:
            epoch: from 0.
        """
        start = time.monotonic()
        sums = EpochSums(self._device, epoch + 1, self._training.views_per_image)
        yield from self._learn(epoch, sums)
        figures = self._figures_of(sums, epoch + 1, start)
        self._learner.average_buffers()
        if self._validator is not None and self._is_validated(epoch + 1):
            figures |= yield from self._validator.figures(self._learner.build_published(), epoch + 1)
        self.curve.append(Figures(**figures))

    def _learn(self, epoch: int, sums: EpochSums) -> Iterator[Step]:
        """The steps of an epoch. A process whose batches are used up takes part until those of all others are, too."""
        batches = self._batches(epoch)
        images = number = 0
        while True:
            batch = next(batches, None)
            if batch is None and self._peers.size == 1:
                return
            self._learner.set_progress(epoch + images / self._images)
            seed_everything(self._training.seed, epoch, number, self._peers.rank)
            size = self._learner.step(batch, sums)
            if size.batches == 0:
                return
            images, number = images + size.images, number + 1
            if number % _STEPS_PER_REPORT == 0:
                yield Step(epoch + 1, images, self._images, sums.mean_loss())

    def _batches(self, epoch: int) -> Iterator[Batch]:
        training, augment, process = self._training, self._augment, self._process
        if self._cached is not None:
            if self._coming is None:
                epochs = CachedEpochs(self._cached, training, augment, epoch, process)
                self._coming = _Coming(batches_of(epochs, training), epochs.batches_per_epoch)
            return itertools.islice(self._coming.batches, self._coming.per_epoch)
        counts = self._counts or ()
        streamed = StreamedEpoch(self._shards, counts, training, augment, self._store, epoch, process)
        return batches_of(streamed, training)

    def _figures_of(self, sums: EpochSums, epoch: int, start: float) -> dict[str, Any]:
        """The figures of an epoch without those of its validation, over all processes.

        Raises:
            RunError: the loss is not finite, or too many images were left out.
        """
        sums.mean_loss()
        loss, right, learned, left_out = self._peers.sum_over_all(sums.values(), self._device)
        seconds = time.monotonic() - start
        left_out += self._cached.left_out if self._cached else 0
        refuse_losses("images", int(left_out), int(learned + left_out))
        mixed = self._training.regularisation.mixup or self._training.regularisation.cutmix
        return {
            "epoch": epoch,
            "lr": self._learner.learning_rate,
            "train_loss": loss / learned,
            "train_accuracy": None if mixed else right / learned,
            "images": int(learned),
            "left_out": int(left_out),
            "seconds": round(seconds, 3),
        }

    def _is_validated(self, epoch: int) -> bool:
        chosen = self._training.validation
        return chosen is not None and (epoch == self._training.epochs or epoch % chosen.every_epochs == 0)
