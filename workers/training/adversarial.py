"""Adversarial training: the network learns from images that an attack has perturbed.

The attack is projected gradient descent. It starts at a random point within eps of the image. Each step goes a fixed
length in the direction that raises the attacked quantity most, then back to the nearest point within eps whose pixels
are from 0 to 1. Pixels that an ablation hides are not perturbed.

    loss    what the attack raises                          what the network learns from
    ce      cross-entropy of the image's class              cross-entropy of perturbed images
    trades  KL divergence from the clean prediction         cross-entropy of clean images + beta x KL divergence

The attack sees the network in evaluation mode: batch norms use their running statistics, and nothing is dropped. As in
the code of the recipe, the divergence sends gradients through both predictions, the step keeps its length while eps
rises, and the attack uses neither label smoothing nor mixed targets. There eps rises once an epoch; here with each step
of the optimizer.

Sources: Madry et al. 2018, arXiv:1706.06083; Zhang et al. 2019 (TRADES), arXiv:1901.08573; Debenedetti et al. 2023 (the
recipe), arXiv:2209.07399, and github.com/dedeswim/vits-robustness-torch.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from smoothcert.manifests.training import Adversarial, Training
from smoothcert.workers.training.augmentation import generators
from smoothcert.workers.training.losses import ForwardPass, Loss, Scored, Together, cross_entropy

_SMALLEST_LENGTH = 1e-12  # a gradient of zero has no direction


class Attack:
    """Perturbs images.

    Args:
        chosen: the section of the training file.
    """

    def __init__(self, chosen: Adversarial) -> None:
        self._chosen = chosen

    def eps_after(self, epochs: float) -> float:
        """The largest length of a perturbation after so many epochs."""
        warmup = self._chosen.warmup_epochs
        return self._chosen.eps * (min(1.0, epochs / warmup) if warmup else 1.0)

    def perturb(
        self,
        raised: Callable[[Tensor], Tensor],
        pixels_SCHW: Tensor,
        visible_S1HW: Tensor,
        generators: Iterator[torch.Generator],
        epochs: float,
    ) -> Tensor:
        """[S, C, H, W]: the perturbed images.

        Args:
            raised: gives what the attack raises, summed over the images.
            pixels_SCHW: the clean images, 0 to 1.
            visible_S1HW: the pixels that may change.
            generators: the random numbers of each image.
            epochs: done so far.
        """
        eps, uniform = self.eps_after(epochs), self._uniform_linf if self._is_linf else self._uniform_l2
        start_SCHW = uniform(pixels_SCHW, visible_S1HW, generators) * eps
        perturbed_SCHW = (pixels_SCHW + start_SCHW).clamp(0, 1)
        for _ in range(self._chosen.steps):
            perturbed_SCHW.requires_grad_()
            (gradient_SCHW,) = torch.autograd.grad(raised(perturbed_SCHW), perturbed_SCHW)
            moved_SCHW = perturbed_SCHW.detach() + self._chosen.step * self._direction(gradient_SCHW)
            shift_SCHW = self._shortened(moved_SCHW - pixels_SCHW, eps)
            perturbed_SCHW = (pixels_SCHW + shift_SCHW).clamp(0, 1)
        return perturbed_SCHW

    @property
    def _is_linf(self) -> bool:
        return self._chosen.norm == "linf"

    def _uniform_linf(self, pixels_SCHW: Tensor, visible_S1HW: Tensor, generators: Iterator[torch.Generator]) -> Tensor:
        """Uniform in the cube from -1 to 1 of the visible pixels."""
        uniform_SCHW = torch.empty_like(pixels_SCHW)
        for row, generator in zip(uniform_SCHW, generators, strict=True):
            row.uniform_(-1, 1, generator=generator)
        return uniform_SCHW * visible_S1HW

    def _uniform_l2(self, pixels_SCHW: Tensor, visible_S1HW: Tensor, generators: Iterator[torch.Generator]) -> Tensor:
        """Uniform in the ball of radius 1 of the visible pixels."""
        normal_SCHW, radius_S111 = torch.empty_like(pixels_SCHW), pixels_SCHW.new_empty(len(pixels_SCHW), 1, 1, 1)
        for row, radius, generator in zip(normal_SCHW, radius_S111, generators, strict=True):
            row.normal_(generator=generator)
            radius.uniform_(generator=generator)
        numbers_S111 = visible_S1HW.expand_as(pixels_SCHW).sum(dim=(1, 2, 3), keepdim=True)
        return _unit(normal_SCHW * visible_S1HW) * radius_S111 ** (1 / numbers_S111)

    def _direction(self, gradient_SCHW: Tensor) -> Tensor:
        return gradient_SCHW.sign() if self._is_linf else _unit(gradient_SCHW)

    def _shortened(self, shift_SCHW: Tensor, eps: float) -> Tensor:
        """The nearest perturbation within eps."""
        if self._is_linf:
            return shift_SCHW.clamp(-eps, eps)
        return shift_SCHW * (eps / _length(shift_SCHW)).clamp(max=1)


class AdversarialLoss(Loss):
    """The loss of perturbed images; its logits are theirs, too.

    Args:
        training: the training file.
        chosen: its section.
        forward_pass: the network.
    """

    def __init__(self, training: Training, chosen: Adversarial, forward_pass: ForwardPass) -> None:
        self._training, self._chosen, self._pass = training, chosen, forward_pass
        self._attack = Attack(chosen)

    def __call__(self, together: Together, epochs: float) -> Scored:
        perturbed_SCHW = self._perturbed(together, epochs)
        if self._chosen.loss == "ce":
            logits_SK = self._pass(perturbed_SCHW, together.group)
            return Scored(cross_entropy(self._training, logits_SK, together.targets), logits_SK)
        clean_SK = self._pass(together.pixels, together.group)
        logits_SK = self._pass(perturbed_SCHW, together.group)
        divergence = F.kl_div(logits_SK.log_softmax(dim=1), clean_SK.softmax(dim=1), reduction="sum")
        loss = cross_entropy(self._training, clean_SK, together.targets) + self._chosen.beta * divergence
        return Scored(loss, logits_SK)

    def _perturbed(self, together: Together, epochs: float) -> Tensor:
        pixels_SCHW, group = together.pixels, together.group
        forward = self._pass.forward
        forward.eval()
        perturbed_SCHW = self._attack.perturb(
            self._raised(together),
            pixels_SCHW,
            forward.visible(group),
            generators(together.seeds, pixels_SCHW.device),
            epochs,
        )
        forward.train()
        return perturbed_SCHW

    def _raised(self, together: Together) -> Callable[[Tensor], Tensor]:
        """What the attack raises, as a function of perturbed pixels."""
        group = together.group
        if self._chosen.loss == "ce":
            return lambda pixels: F.cross_entropy(self._pass(pixels, group), together.classes, reduction="sum")
        with torch.no_grad():
            clean_SK = self._pass(together.pixels, group).softmax(dim=1)
        return lambda pixels: F.kl_div(self._pass(pixels, group).log_softmax(dim=1), clean_SK, reduction="sum")


def _length(images_SCHW: Tensor) -> Tensor:
    """[S, 1, 1, 1]: the L2 norm of each image, never zero."""
    return images_SCHW.flatten(1).norm(dim=1).clamp(min=_SMALLEST_LENGTH)[:, None, None, None]


def _unit(images_SCHW: Tensor) -> Tensor:
    """Each image scaled to length 1; a zero stays zero."""
    return images_SCHW / _length(images_SCHW)
