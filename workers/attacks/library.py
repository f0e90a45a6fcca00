"""The optimisers of pyautoattack: APGD and Square, called so that rows are the same again.

The library seeds torch's generators. It is called for one start at a time, because with several it leaves out images by
rules of its own.

Source: Croce & Hein 2020, arXiv:2003.01690 (APGD); Andriushchenko et al. 2020, arXiv:1912.00049 (Square).
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from smoothcert.manifests.errors import RequestError

Norm = Literal["Linf", "L2"]


@contextmanager
def _library() -> Iterator[Any]:
    try:
        import pyautoattack.autopgd_base
        import pyautoattack.square
    except ImportError as error:
        raise RequestError(
            f"attacks need pyautoattack ({error}); run: pip install 'smoothcert[attack]' (or pip install pyautoattack)"
        ) from None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "there are .* points with zero gradient", Warning)
        yield pyautoattack


def apgd(
    module: nn.Module, start: Tensor, labels: Tensor, *, loss: str, steps: int, norm: Norm, eps: float, seed: int
) -> Tensor:
    """One run of APGD from a random start.

    Args:
        module: inputs [N, ...] between 0 and 1 to logits [N, K].
        start: [N, ...], the centre of the ball.
        labels: [N] int64, the classes to leave.
        loss: ce or dlr.
        steps: forward and backward passes, besides the first.
        norm, eps: the ball.
        seed: of the start.
    Returns:
        [N, ...]: the last input that left the class, or some input for those that did not.
    """
    with _library() as library:
        attack = library.autopgd_base.APGDAttack(module, n_iter=steps, norm=norm, eps=eps, seed=seed, loss=loss)
        attack.init_hyperparam(start)
        torch.manual_seed(seed)
        _, _, _, found = attack.attack_single_run(start.contiguous(), labels)
        result: Tensor = found
        return result


def square(
    module: nn.Module, start: Tensor, labels: Tensor, *, queries: int, norm: Norm, eps: float, seed: int
) -> Tensor:
    """One run of Square; arguments as for `apgd`. The module sees only the images that have not left their class."""
    with _library() as library:
        attack = library.square.SquareAttack(
            module, n_queries=queries, norm=norm, eps=eps, seed=seed, resc_schedule=True
        )
        attack.init_hyperparam(start)
        torch.manual_seed(seed)
        _, found = attack.attack_single_run(start.contiguous(), labels)
        result: Tensor = found
        return result
