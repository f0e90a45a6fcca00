"""The processes that share a training, and what they exchange through torch.distributed.

Without torch.distributed there is one process, and nothing is sent.

DistributedDataParallel averages gradients, too, but it needs a backward pass of every process in every step. If one
process has no image in a step, the step waits for ever with `no_sync`, and the process gets no gradient with `join`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

_T = TypeVar("_T")


class StepSize(NamedTuple):
    """The images and the batches of all processes in one step."""

    images: int
    batches: int


class Peers:
    """This process among all training processes."""

    def __init__(self) -> None:
        self._alone = not (dist.is_available() and dist.is_initialized())
        self.rank = 0 if self._alone else dist.get_rank()
        self.size = 1 if self._alone else dist.get_world_size()

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def call_in_first(self, function: Callable[[], _T]) -> _T:
        """Call a function in the first process and return its result, a small object, in all."""
        result: list[Any] = [function() if self.is_first else None]
        if not self._alone:
            dist.broadcast_object_list(result, src=0)
        return result[0]

    def sum_over_all(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Each value summed over all processes."""
        total = torch.tensor(values, dtype=torch.float64, device=device)
        self._sum([total])
        return total.tolist()

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors of all processes with those of the first."""
        if not self._alone:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor of floating-point numbers by its mean over all processes; others stay."""
        floats = [tensor for tensor in tensors if tensor.is_floating_point()]
        self._sum(floats)
        for tensor in floats:
            tensor.div_(self.size)

    def average_gradients(self, parameters: Sequence[Parameter], *, images: int, has_batch: bool) -> StepSize:
        """Turn the gradients of summed losses into the gradient of the mean loss over the images of all processes.

        Processes may have different numbers of images and of backward passes. Without any image the gradients are zero.

        Args:
            parameters: the trained ones, in float32; a gradient that is None counts as zero.
            images: images of this process in this step.
            has_batch: whether this process had a batch, even one without images.
        """
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        size = StepSize(images, int(has_batch))
        if not self._alone:  # reading the counts makes a GPU finish first
            counts = gradients[0].new_tensor(size)
            self._sum([*gradients, counts])
            size = StepSize(*(int(count) for count in counts.tolist()))
        torch._foreach_div_(gradients, max(size.images, 1))
        return size

    def _sum(self, tensors: Sequence[Tensor]) -> None:
        """Sum each tensor over all processes, in place; the messages overlap."""
        if not self._alone:
            for message in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                message.wait()
