"""A training file to weights: the loop.

    epoch   draw for each image -> batches -> steps -> validation -> checkpoint
    step    batch -> mixup -> groups of equal token count -> gradients, summed -> mean over all processes -> weights

Gradients are explicit sums: of the groups of a process, then of the processes, divided by the number of images. So
neither the grouping nor the number of processes changes a step of the same images; only what is drawn for the network
itself (dropout, drop path), mixup, and statistics of a batch norm are each process's own. The learning rate is a
function of how far the training is, and each step seeds the generators anew, so a checkpoint at the end of an epoch is
all that is needed to go on.

Needs no ray. Not covered: how a training looks in storage (training_run.py); what the training file
means in timm's terms (recipe.py); starting several processes (pipeline/).
"""

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.data.mixup import mixup_target
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from smoothcert.manifests.errors import RunError
from smoothcert.manifests.job import Images
from smoothcert.manifests.shards import Shard, find_shards
from smoothcert.manifests.training import Training
from smoothcert.workers.networks.checkpoint_files import require_checkpoint
from smoothcert.workers.networks.classifiers import build_classifier
from smoothcert.workers.storage.store import AnyStore, Store, sha256_of
from smoothcert.workers.training.augmentation import Augment, seed_everything
from smoothcert.workers.training.curves import Figures
from smoothcert.workers.training.data import (
    Batch,
    CachedEpoch,
    LabelledImages,
    OneOf,
    StreamedEpoch,
    batches_of,
    count_images,
    read_images,
    refuse_idle,
    refuse_losses,
)
from smoothcert.workers.training.processes import Peers
from smoothcert.workers.training.recipe import (
    draw_ablations,
    forward_of,
    geometries_of,
    mixup_of,
    optimizer_of,
    scheduler_of,
    starting_network,
)
from smoothcert.workers.training.training_run import TrainingRun
from smoothcert.workers.training.validation import Validated, Validator
from smoothcert.workers.votes.smoothed import without_tf32

_LOOK_EVERY_STEPS = 10  # reading the loss from a GPU makes it wait


class Step(NamedTuple):
    """How far an epoch is.

    Attributes:
        epoch: from 1.
        images: done in it, of `total`.
        loss: mean of its images so far.
    """

    epoch: int
    images: int
    total: int
    loss: float


def train(training: Training) -> Iterator[Step | Validated | Figures]:
    """Train, or go on where an earlier call stopped; what is complete is not done again.

    Call it in each process; all work on the same batches. Only the first publishes.

    Raises:
        RequestError: the training file does not fit the model, the images or what is in the output.
        RunError: images or numbers do not allow to go on.
    """
    peers, store = Peers(), AnyStore(training.storage)
    run = TrainingRun(training, store)
    shards = find_shards(training.images, store)
    identity = training.identity(shards, _checkpoint_sha256(training, store))
    counts: list[int] | None = None
    if peers.is_first:
        run.refuse_others(identity)
        if not training.cache:
            counts = run.image_counts() or count_images(shards, training.images, store)
    counts, epochs_done, complete = peers.from_first((counts, run.epochs_done(), run.is_complete()))
    if complete:
        yield from run.curve()[-1:]
        return
    trainer = _Trainer(training, shards, counts, store, peers)
    if peers.is_first:
        run.begin(identity, counts)  # not before: a file with a mistake in it leaves nothing behind
    if epochs_done:
        trainer.load_state(run.load(epochs_done))
    if epochs_done == training.epochs:  # killed before the weights were published
        yield trainer.curve[-1]
    for epoch in range(epochs_done, training.epochs):
        yield from trainer.epoch(epoch)
        figures = trainer.curve[-1]
        last = epoch + 1 == training.epochs
        if peers.is_first and (last or figures.epoch % training.checkpoint_every_epochs == 0):
            run.publish_checkpoint(trainer.state(), trainer.curve)
        yield figures
    if peers.is_first:
        run.finish(trainer.weights(), trainer.curve)


class _Trainer:
    """Network, optimizer and images of one process."""

    def __init__(
        self, training: Training, shards: tuple[Shard, ...], counts: list[int] | None, store: Store, peers: Peers
    ) -> None:
        self._training, self._shards, self._counts, self._store = training, shards, counts, store
        self._peers, self._process = peers, OneOf(peers.rank, peers.size)
        wants_gpu = training.execution.gpus_per_worker != 0 and torch.cuda.is_available()
        self.device = torch.device("cuda" if wants_gpu else "cpu")
        self.curve: list[Figures] = []
        without_tf32()
        seed_everything(training.seed)
        network = starting_network(training, store)
        self._network = network
        self._geometries = geometries_of(training)
        self._forward = forward_of(training, network)
        self._forward.to_device(self.device)
        peers.share(network.state_dict().values())
        self._parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._optimizer = optimizer_of(training, network)
        self._scheduler = scheduler_of(training, self._optimizer)
        self._average = ModelEmaV3(network, decay=training.ema, use_warmup=True) if training.ema else None
        self._mixup = mixup_of(training)
        self._updates = 0
        self._augment = Augment(training)
        self._cached = None
        if training.cache:
            self._cached = self._read(shards, training.images, OneOf())
            left_out, seen = self._cached.left_out, self._cached.left_out + len(self._cached.labels)
            refuse_losses("images", left_out, seen, self._cached.complaint)
        else:
            refuse_idle(len(shards), training)
        self._images = sum(counts) if counts is not None else len(self._cached.labels) if self._cached else 0
        self._validator = None
        if training.validation is not None:
            held_out = training.validation.images
            own = self._read(find_shards(held_out, store), held_out, self._process)
            counts_here = [own.left_out, own.left_out + len(own.labels)]
            left_out, seen = map(int, peers.sums(counts_here, self.device))
            refuse_losses("validation.images", left_out, seen, own.complaint)
            self._validator = Validator(training, own, peers, self.device)

    def _read(self, shards: Sequence[Shard], images: Images, process: OneOf) -> LabelledImages:
        training = self._training
        return read_images(shards, images, training.preprocess, training.model.classes, self._store, process)

    def state(self) -> dict[str, Any]:
        """All that the next epoch starts from."""
        return {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": self._average.module.state_dict() if self._average else None,
            "updates": self._updates,
            "curve": [figures.as_json() for figures in self.curve],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._average:
            self._average.module.load_state_dict(state["average"])
        self._updates = state["updates"]
        self.curve = [Figures(**figures) for figures in state["curve"]]

    def weights(self) -> dict[str, Tensor]:
        """As they are published: the average where there is one."""
        network = self._average.module if self._average else self._network
        dtype = getattr(torch, self._training.publish_as)
        return {
            name: value.detach().to("cpu", dtype if value.is_floating_point() else value.dtype).contiguous()
            for name, value in network.state_dict().items()
        }

    def epoch(self, epoch: int) -> Iterator[Step | Validated]:
        """Learn from each image once; the figures go to the curve."""
        start, training = time.monotonic(), self._training
        tally = _Tally(self.device, epoch + 1)
        batches = self._batches(epoch)
        images = number = 0
        while True:
            batch = next(batches, None)
            if batch is None and self._peers.size == 1:
                break
            self._scheduler.step(epoch + images / self._images)
            seed_everything(training.seed, epoch, number, self._peers.rank)
            together, batches_of_all = self._step(batch, tally)
            if batches_of_all == 0:
                break
            images, number = images + together, number + 1
            if number % _LOOK_EVERY_STEPS == 0:
                yield Step(epoch + 1, images, self._images, tally.mean_loss())
        tally.mean_loss()
        loss, right, learned, left_out = self._peers.sums(tally.values(), self.device)
        seconds = time.monotonic() - start
        left_out += self._cached.left_out if self._cached else 0
        refuse_losses("images", int(left_out), int(learned + left_out))
        self._peers.average(self._network.buffers())
        if self._average:
            self._peers.average(self._average.module.buffers())
        figures = {
            "epoch": epoch + 1,
            "lr": max(group["lr"] for group in self._optimizer.param_groups),
            "train_loss": loss / learned,
            "train_accuracy": None if self._mixup else right / learned,
            "images": int(learned),
            "left_out": int(left_out),
            "seconds": round(seconds, 3),
        }
        last = epoch + 1 == training.epochs
        if self._validator and training.validation and (last or (epoch + 1) % training.validation.every_epochs == 0):
            figures |= yield from self._validator.figures(self._as_published(), epoch + 1)
        self.curve.append(Figures(**figures))

    def _batches(self, epoch: int) -> Iterator[Batch]:
        training, augment, process = self._training, self._augment, self._process
        if self._cached is not None:
            return batches_of(CachedEpoch(self._cached, training, augment, epoch, process), training)
        counts = self._counts or ()
        streamed = StreamedEpoch(self._shards, counts, training, augment, self._store, epoch, process)
        return batches_of(streamed, training)

    def _step(self, batch: Batch | None, tally: "_Tally") -> tuple[int, int]:
        """One update of the weights; how many images and batches took part in it, in all processes."""
        self._optimizer.zero_grad(set_to_none=True)
        mine = 0
        if batch is not None:
            mine = len(batch.labels)
            tally.left_out += batch.left_out
            self._backward(batch, tally)
        together, batches = self._peers.mean_gradients(self._parameters, images=mine, has_batch=batch is not None)
        if together == 0:
            return 0, batches
        if (longest := self._training.optimizer.clip_grad) is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, longest)
        self._optimizer.step()
        self._updates += 1
        if self._average:
            self._average.update(self._network, step=self._updates)
        return together, batches

    def _backward(self, batch: Batch, tally: "_Tally") -> None:
        training = self._training
        self._forward.train()
        labels = batch.labels.to(self.device)
        pixels_NCHW = batch.pixels.to(self.device).permute(0, 3, 1, 2).float() / 255
        targets = self._mixed(pixels_NCHW, labels)
        ablations = draw_ablations(training, self._geometries, batch.draws).to(self.device)
        smoothing = training.regularisation.label_smoothing if targets is labels else 0.0
        for group in self._forward.groups(ablations, at_most=training.execution.images_per_forward):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=training.precision == "bfloat16"):
                logits_SK = self._logits(pixels_NCHW, group)
            loss = F.cross_entropy(logits_SK.float(), targets[group.images], reduction="sum", label_smoothing=smoothing)
            loss.backward()
            tally.add(loss.detach(), logits_SK, labels[group.images])

    def _logits(self, pixels_NCHW: Tensor, group: Any) -> Tensor:
        try:
            return self._forward(pixels_NCHW, group)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise RunError(
                "a batch norm cannot learn from a single image, which the last batch of an epoch, or of a process, "
                "has; change batch_size or images_per_forward"
            ) from None

    def _mixed(self, pixels_NCHW: Tensor, labels: Tensor) -> Tensor:
        """Mix in place; targets are labels, or shares of classes where images were mixed. timm mixes pairs."""
        if self._mixup is None or len(labels) < 2:
            return labels
        even = len(labels) // 2 * 2
        _, targets = self._mixup(pixels_NCHW[:even], labels[:even])
        smoothing = self._training.regularisation.label_smoothing
        return torch.cat([targets, mixup_target(labels[even:], targets.shape[1], smoothing=smoothing)])

    def _as_published(self) -> nn.Module:
        network = build_classifier(self._training.model, self._training.preprocess.network_side)
        network.load_state_dict(self.weights())
        return network


class _Tally:
    """Sums over the images of an epoch that this process has learned from."""

    def __init__(self, device: torch.device, epoch: int) -> None:
        self._epoch = epoch
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._right = torch.zeros((), dtype=torch.int64, device=device)
        self._images = self.left_out = 0

    def add(self, loss: Tensor, logits_SK: Tensor, labels: Tensor) -> None:
        self._loss += loss
        self._right += (logits_SK.argmax(dim=1) == labels).sum()
        self._images += len(labels)

    def mean_loss(self) -> float:
        """So far.

        Raises:
            RunError: it is not finite.
        """
        loss = float(self._loss) / max(self._images, 1)
        if not math.isfinite(loss):
            raise RunError(
                f"the loss is {loss} in epoch {self._epoch}; lower optimizer.lr, or set optimizer.clip_grad, "
                "and begin under another name"
            )
        return loss

    def values(self) -> list[float]:
        """Loss, right, images, left out."""
        return [float(self._loss), float(self._right), self._images, self.left_out]


def _checkpoint_sha256(training: Training, store: Store) -> str | None:
    if training.model.checkpoint is None:
        return None
    require_checkpoint(training.model.checkpoint, store)
    with store.local(training.model.checkpoint) as file:
        return sha256_of(file)
