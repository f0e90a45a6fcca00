"""What a training file means in timm's terms, where timm alone would mean something else."""

from pathlib import Path

import torch
from torch import nn

from smoothcert.workers.training.recipe import optimizer_of
from tests.helpers.trainings import small_training


def test_muon_orthogonalises_in_float32(tmp_path: Path) -> None:
    """Its step is the orthogonalised gradient to float32's precision; timm's own bfloat16 is a hundred times off.

    Expected in float64: five steps of Muon's polynomial, on the singular values.
    """
    rate, decay = 0.01, 0.1
    settings = {"name": "muon", "lr": rate, "momentum": 0.0, "weight_decay": decay}
    chosen = settings | {"options": {"ns_coefficients": "original"}}
    network = nn.Sequential(nn.Linear(24, 40, bias=False))
    weights = network[0].weight
    before = weights.detach().double()
    gradient = torch.randn(40, 24, generator=torch.Generator().manual_seed(0))
    left, singular, right = torch.linalg.svd(gradient.double(), full_matrices=False)
    singular = singular / singular.norm()
    for _ in range(5):
        singular = 3.4445 * singular - 4.7750 * singular**3 + 2.0315 * singular**5
    orthogonalised = left @ singular.diag() @ right
    expected = before * (1 - rate * decay) - rate * 0.2 * 40**0.5 * orthogonalised

    optimizer = optimizer_of(small_training(tmp_path, optimizer=chosen), network)
    weights.grad = gradient
    optimizer.step()

    torch.testing.assert_close(weights.detach().double(), expected, rtol=0, atol=1e-6)
