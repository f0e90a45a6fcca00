"""The optimisers of libraries: APGD and Square of pyautoattack, FGSM and PGD of foolbox. None is written here.

    inputs [N, ...] between 0 and 1, and their classes -> changed inputs within a ball; the caller asks what they do

Each call seeds torch's generators, so its result is the same again.

Source: Croce & Hein 2020, arXiv:2003.01690 (APGD); Andriushchenko et al. 2020, arXiv:1912.00049 (Square); Goodfellow et
al. 2015, arXiv:1412.6572 (FGSM); Madry et al. 2018, arXiv:1706.06083 (PGD).
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from smoothcert.workers.extras import load

Norm = Literal["Linf", "L2"]
_STEPS_ACROSS = 2.5  # PGD could walk this many times the radius


@dataclass(frozen=True)
class Attacked:
    """What is attacked, and how far inputs may be changed.

    Attributes:
        module: inputs [N, ...] to logits [N, K].
        norm, eps: of the changes.
    """

    module: nn.Module
    norm: Norm
    eps: float

    def apgd_once(self, inputs: Tensor, classes: Tensor, *, loss: str, steps: int, seed: int) -> Tensor:
        """One run of APGD, in which the module sees all inputs in each step.

        Args:
            inputs: [N, ...], centres of the balls.
            classes: [N] int64, to be left.
            loss: ce or dlr.
            steps: of the run.
            seed: of its random start.
        """
        with _pyautoattack() as library:
            attack = library.autopgd_base.APGDAttack(
                self.module, n_iter=steps, norm=self.norm, eps=self.eps, seed=seed, loss=loss
            )
            attack.init_hyperparam(inputs)
            torch.manual_seed(seed)
            return attack.attack_single_run(inputs.contiguous(), classes)[3].detach()

    def square_once(self, inputs: Tensor, classes: Tensor, *, queries: int, seed: int) -> Tensor:
        """One run of Square, in which the module sees the inputs that have not left their class."""
        with _pyautoattack() as library:
            attack = library.square.SquareAttack(
                self.module, n_queries=queries, norm=self.norm, eps=self.eps, seed=seed, resc_schedule=True
            )
            attack.init_hyperparam(inputs)
            torch.manual_seed(seed)
            return attack.attack_single_run(inputs.contiguous(), classes)[1].detach()

    def apgd(self, inputs: Tensor, classes: Tensor, *, steps: int, restarts: int, seed: int) -> Tensor:
        """APGD on cross entropy, as AutoAttack calls it."""
        with _pyautoattack() as library:
            attack = library.autopgd_base.APGDAttack(
                self.module, n_iter=steps, norm=self.norm, n_restarts=restarts, eps=self.eps, seed=seed, loss="ce"
            )
            return attack.perturb(inputs.contiguous(), classes).detach()

    def apgd_targeted(self, inputs: Tensor, classes: Tensor, *, steps: int, targets: int, seed: int) -> Tensor:
        """Targeted APGD towards each of the next most likely classes, as AutoAttack calls it."""
        with _pyautoattack() as library:
            attack = library.autopgd_base.APGDAttack_targeted(
                self.module, n_iter=steps, norm=self.norm, eps=self.eps, seed=seed, n_target_classes=targets
            )
            return attack.perturb(inputs.contiguous(), classes).detach()

    def square(self, inputs: Tensor, classes: Tensor, *, queries: int, seed: int) -> Tensor:
        """Square, as AutoAttack calls it."""
        with _pyautoattack() as library:
            attack = library.square.SquareAttack(
                self.module, n_queries=queries, norm=self.norm, eps=self.eps, seed=seed, resc_schedule=False
            )
            return attack.perturb(inputs.contiguous(), classes).detach()

    def fgsm(self, inputs: Tensor, classes: Tensor) -> Tensor:
        """One step along the gradient."""
        foolbox = load("foolbox", "attack", "attack")
        kinds = {"Linf": foolbox.attacks.LinfFastGradientAttack, "L2": foolbox.attacks.L2FastGradientAttack}
        return self._by_foolbox(kinds[self.norm](random_start=False), inputs, classes)

    def pgd(self, inputs: Tensor, classes: Tensor, *, steps: int, seed: int) -> Tensor:
        """PGD from a random start, with steps of 2.5 eps / steps."""
        foolbox = load("foolbox", "attack", "attack")
        kinds = {
            "Linf": foolbox.attacks.LinfProjectedGradientDescentAttack,
            "L2": foolbox.attacks.L2ProjectedGradientDescentAttack,
        }
        torch.manual_seed(seed)
        attack = kinds[self.norm](steps=steps, rel_stepsize=_STEPS_ACROSS / steps, random_start=True)
        return self._by_foolbox(attack, inputs, classes)

    def _by_foolbox(self, attack: Any, inputs: Tensor, classes: Tensor) -> Tensor:
        foolbox = load("foolbox", "attack", "attack")
        model = foolbox.PyTorchModel(self.module, bounds=(0, 1), device=inputs.device)
        return attack.run(model, inputs, foolbox.criteria.Misclassification(classes), epsilon=self.eps)


@contextmanager
def _pyautoattack() -> Iterator[Any]:
    package = load("pyautoattack", "attack", "attack")
    with warnings.catch_warnings():  # images that fell have no gradient any more
        warnings.filterwarnings("ignore", "there are .* points with zero gradient")
        yield package
