"""One step of learning in one training process, with its network, optimizer and schedule.

    step    batch -> mixup -> views -> groups of equal token count -> losses -> gradients, summed -> mean over all
            processes -> weights

A view is an image under one of its ablations. Gradients are summed over the groups of a process, then over the
processes, and divided by the number of images; the loss of an image is the mean over its views. So
neither the grouping nor the number of processes changes a step of the same images. Only the random numbers of the
network itself (dropout, drop path), mixup, and the statistics of a batch norm differ from process to process.

Not covered: the images and the order of the steps (loop.py); the losses (losses.py, adversarial.py,
patch_sensitivity.py).
"""

import math
from typing import Any

import torch
from timm.data.mixup import mixup_target
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from smoothcert.manifests.errors import RunError
from smoothcert.manifests.training import Training
from smoothcert.workers.networks.classifiers import build_classifier
from smoothcert.workers.storage.store import Store
from smoothcert.workers.training.adversarial import AdversarialLoss
from smoothcert.workers.training.epochs import Batch
from smoothcert.workers.training.losses import CrossEntropy, ForwardPass, Loss, Together
from smoothcert.workers.training.patch_sensitivity import PatchSensitivityLoss
from smoothcert.workers.training.processes import Peers, StepSize
from smoothcert.workers.training.recipe import (
    draw_ablations,
    forward_of,
    kinds_of,
    mixup_of,
    optimizer_of,
    scheduler_of,
    starting_network,
)


class EpochSums:
    """Sums over the images of an epoch that this process learns from.

    Args:
        device: where the losses are.
        epoch: from 1, for errors.
        views: of each image.
    """

    def __init__(self, device: torch.device, epoch: int, views: int = 1) -> None:
        self._epoch, self._views_per_image = epoch, views
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._right = torch.zeros((), dtype=torch.int64, device=device)
        self._views = self.left_out = 0

    def add(self, loss: Tensor, logits_SK: Tensor, labels: Tensor) -> None:
        """Add the summed loss and the predictions of some views."""
        self._loss += loss
        self._right += (logits_SK.argmax(dim=1) == labels).sum()
        self._views += len(labels)

    def mean_loss(self) -> float:
        """The mean loss so far.

        Raises:
            RunError: it is not finite.
        """
        loss = float(self._loss) / max(self._views, 1)
        if not math.isfinite(loss):
            raise RunError(
                f"the loss is {loss} in epoch {self._epoch}; lower optimizer.lr, or set optimizer.clip_grad, "
                "and begin under another name"
            )
        return loss

    def values(self) -> list[float]:
        """Loss, right predictions (a mean over the views of an image), images, images left out."""
        learned = (float(self._loss), float(self._right), self._views)
        return [*(value / self._views_per_image for value in learned), self.left_out]


class Learner:
    """Network, optimizer and schedule of one process.

    Args:
        training: the training file.
        store: the store that holds the checkpoint to start from.
        peers: the processes; all start from the first one's weights.
        device: where the network computes.
    Raises:
        RequestError: the network, its weights or the optimizer cannot be made as the training file says.
    """

    def __init__(self, training: Training, store: Store, peers: Peers, device: torch.device) -> None:
        self._training, self._peers, self._device = training, peers, device
        network = starting_network(training, store)
        self._network = network
        self._kinds = kinds_of(training)
        self._forward = forward_of(training, network)
        self._forward.to_device(device)
        peers.copy_first(network.state_dict().values())
        self._parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._optimizer = optimizer_of(training, network)
        self._scheduler = scheduler_of(training, self._optimizer)
        self._average = ModelEmaV3(network, decay=training.ema, use_warmup=True) if training.ema else None
        self._mixup = mixup_of(training)
        self._loss = _loss_of(training, ForwardPass(training, self._forward), device)
        peers.copy_first(parameter.detach() for parameter in self._loss.trained)
        self._updates, self._epochs = 0, 0.0

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, on the network's device."""
        return {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": self._average.module.state_dict() if self._average else None,
            "updates": self._updates,
            "loss": self._loss.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._average:
            self._average.module.load_state_dict(state["average"])
        self._updates = state["updates"]
        if (of_loss := state.get("loss")) is not None:
            self._loss.load_state(of_loss)

    def weights(self) -> dict[str, Tensor]:
        """The weights to publish, on the CPU: the average, if the training file asks for one."""
        network = self._average.module if self._average else self._network
        dtype = getattr(torch, self._training.publish_as)
        return {
            name: value.detach().to("cpu", dtype if value.is_floating_point() else value.dtype).contiguous()
            for name, value in network.state_dict().items()
        }

    def build_published(self) -> nn.Module:
        """A network with the weights to publish."""
        network = build_classifier(self._training.model, self._training.preprocess.network_side)
        network.load_state_dict(self.weights())
        return network

    @property
    def learning_rate(self) -> float:
        """The largest learning rate of all groups of parameters."""
        return max(group["lr"] for group in self._optimizer.param_groups)

    def set_progress(self, epochs: float) -> None:
        """Say how many epochs are done, which may be a fraction; the schedule gives their learning rate."""
        self._epochs = epochs
        self._scheduler.step(epochs)

    def average_buffers(self) -> None:
        """Give all processes the mean of their buffers, such as the statistics of a batch norm."""
        self._peers.average(self._network.buffers())
        if self._average:
            self._peers.average(self._average.module.buffers())

    def step(self, batch: Batch | None, sums: EpochSums) -> StepSize:
        """Update the weights once.

        Args:
            batch: of this process; None if it has no more, while others have.
            sums: of the epoch; the batch is added to them.
        """
        trained = [*self._parameters, *self._loss.trained]
        for parameter in trained:
            parameter.grad = None
        images = 0
        if batch is not None:
            images = len(batch.labels)
            sums.left_out += batch.left_out
            self._add_gradients(batch, sums)
        size = self._peers.average_gradients(trained, images=images, has_batch=batch is not None)
        if size.images == 0:
            return size
        if (max_norm := self._training.optimizer.clip_grad) is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, max_norm)
        self._optimizer.step()
        self._loss.step()
        self._updates += 1
        if self._average:
            self._average.update(self._network, step=self._updates)
        return size

    def _add_gradients(self, batch: Batch, sums: EpochSums) -> None:
        """Add the gradients of the summed loss of a batch, group by group."""
        training, views = self._training, self._training.views_per_image
        self._forward.train()
        labels = batch.labels.to(self._device)
        pixels_NCHW = batch.pixels.to(self._device).permute(0, 3, 1, 2).float() / 255
        targets = self._mix(pixels_NCHW, labels)
        draws = batch.draws.repeated(views)
        ablations = draw_ablations(training, self._kinds, draws).to(self._device)
        seeds = torch.from_numpy(draws.seed).to(self._device)
        # All groups first: finding one reads from the GPU, which then finishes its work before.
        groups: list[Any] = list(self._forward.groups(ablations, at_most=training.execution.images_per_forward))
        for group in groups:
            images = group.images % len(labels)
            together = Together(
                pixels_NCHW[images],
                group._replace(images=torch.arange(len(images), device=self._device)),
                targets[images],
                seeds[group.images],
            )
            loss, logits_SK = self._loss(together, self._epochs)
            (loss / views).backward()
            sums.add(loss.detach(), logits_SK, labels[images])

    def _mix(self, pixels_NCHW: Tensor, labels: Tensor) -> Tensor:
        """Mix images in place, pair by pair as timm does; return labels, or shares of classes if images were mixed."""
        if self._mixup is None or len(labels) < 2:
            return labels
        even = len(labels) // 2 * 2
        _, targets = self._mixup(pixels_NCHW[:even], labels[:even])
        smoothing = self._training.regularisation.label_smoothing
        return torch.cat([targets, mixup_target(labels[even:], targets.shape[1], smoothing=smoothing)])


def _loss_of(training: Training, forward_pass: ForwardPass, device: torch.device) -> Loss:
    if training.adversarial is not None:
        return AdversarialLoss(training, training.adversarial, forward_pass)
    if (chosen := training.regularisation.patch_sensitivity) is not None:
        return PatchSensitivityLoss(training, chosen, forward_pass, device)
    return CrossEntropy(training, forward_pass)
