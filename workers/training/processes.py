"""The processes that share a training: what they tell each other, through torch.distributed.

Where it is not initialised there is one process, and nothing is sent.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

_T = TypeVar("_T")


class Peers:
    """This process among all."""

    def __init__(self) -> None:
        self._alone = not (dist.is_available() and dist.is_initialized())
        self.rank = 0 if self._alone else dist.get_rank()
        self.size = 1 if self._alone else dist.get_world_size()

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def from_first(self, value: _T) -> _T:
        """What the first process has here; a small object."""
        if self._alone:
            return value
        there: list[Any] = [value]
        dist.broadcast_object_list(there, src=0)
        return there[0]

    def sums(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Each value summed over all processes."""
        total = torch.tensor(values, dtype=torch.float64, device=device)
        if not self._alone:
            dist.all_reduce(total)
        return total.tolist()

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the first one's tensors."""
        if not self._alone:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Make each tensor of floating-point numbers the mean over all processes; others stay."""
        if not self._alone:
            for tensor in tensors:
                if tensor.is_floating_point():
                    dist.all_reduce(tensor)
                    tensor.div_(self.size)

    def mean_gradients(self, parameters: Sequence[Parameter], *, images: int, has_batch: bool) -> tuple[int, int]:
        """Turn gradients of a summed loss into those of its mean over the images of all processes.

        One message a step, so processes may have different numbers of images and of backward passes.

        Args:
            parameters: those that learn, in float32; a gradient that is None counts as zero.
            images: how many this process has summed over.
            has_batch: whether it had a batch, be it of no image.
        Returns:
            The images and the batches of all processes; where there is no image, the gradients are zero.
        """
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        batches = int(has_batch)
        if not self._alone:
            flat = torch.cat(
                [*(gradient.flatten() for gradient in gradients), gradients[0].new_tensor([images, batches])]
            )
            dist.all_reduce(flat)
            *sums, counts = flat.split([*(gradient.numel() for gradient in gradients), 2])
            for gradient, summed in zip(gradients, sums, strict=True):
                gradient.copy_(summed.view_as(gradient))
            images, batches = (int(count) for count in counts.tolist())
        torch._foreach_div_(gradients, max(images, 1))
        return images, batches
