"""What training processes exchange: two of them, over gloo."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn

from smoothcert.workers.training.processes import Peers, StepSize

_CPU = torch.device("cpu")


def _run(rank: int, check: Callable[[Peers], None], meeting: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    check(Peers())
    dist.destroy_process_group()


def _in_two(check: Callable[[Peers], None], folder: Path) -> None:
    torch.multiprocessing.spawn(_run, args=(check, folder / "meeting"), nprocs=2)


def _gradients(network: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def _check_gradients(peers: Peers) -> None:
    images = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    expected = _network()
    expected(images).mean().backward()

    network, parts = _network(), [[images[:1], images[1:3]], [images[3:]]]
    for part in parts[peers.rank]:  # one process has two backward passes, the other one
        network(part).sum().backward()
    counts = [3, 1]
    size = peers.average_gradients(list(network.parameters()), images=counts[peers.rank], has_batch=True)
    assert size == StepSize(4, 2)
    for mine, whole in zip(_gradients(network), _gradients(expected), strict=True):
        torch.testing.assert_close(mine, whole)

    network = _network()
    if peers.is_first:  # the other process has no batch
        network(images).sum().backward()
    size = peers.average_gradients(list(network.parameters()), images=4 * peers.is_first, has_batch=peers.is_first)
    assert size == StepSize(4, 1)
    for mine, whole in zip(_gradients(network), _gradients(expected), strict=True):
        torch.testing.assert_close(mine, whole)

    network = _network()  # no process has a batch
    assert peers.average_gradients(list(network.parameters()), images=0, has_batch=False) == StepSize(0, 0)
    assert not any(gradient.any() for gradient in _gradients(network))


def test_gradients_are_those_of_the_mean_over_all_images(tmp_path: Path) -> None:
    """However many images and backward passes a process has, none included. Oracle: one process with all images."""
    _in_two(_check_gradients, tmp_path)


def _check_exchange(peers: Peers) -> None:
    assert peers.call_in_first(lambda: peers.rank + 7) == 7
    assert peers.sum_over_all([peers.rank, 2.5], _CPU) == [1, 5]
    mine, whole = torch.tensor([float(peers.rank), 1.0]), torch.tensor([peers.rank])
    peers.average([mine, whole])
    assert mine.tolist() == [0.5, 1.0]
    assert whole.tolist() == [peers.rank]
    peers.copy_first([whole])
    assert whole.tolist() == [0]


def test_values_and_tensors_are_exchanged(tmp_path: Path) -> None:
    """The first process's result and tensors reach all; whole numbers are not averaged."""
    _in_two(_check_exchange, tmp_path)


@pytest.mark.parametrize("images", [0, 2])
def test_one_process_sends_nothing(images: int) -> None:
    """Without torch.distributed the same methods answer for the one process."""
    peers, network = Peers(), _network()
    network(torch.ones(2, 3)).sum().backward()
    before = [gradient.clone() for gradient in _gradients(network)]
    assert peers.average_gradients(list(network.parameters()), images=images, has_batch=True) == StepSize(images, 1)
    for after, summed in zip(_gradients(network), before, strict=True):
        torch.testing.assert_close(after, summed / max(images, 1))
    assert peers.call_in_first(lambda: "x") == "x"
    assert peers.sum_over_all([1, 2], _CPU) == [1, 2]
