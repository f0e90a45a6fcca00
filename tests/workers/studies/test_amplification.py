"""Amplification against the singular values of the full Jacobian, and blocks whose values are known."""

import itertools

import pytest
import timm
import torch
from torch import nn

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.studies import Amplification
from smoothcert.workers.studies.amplification import KIND, AmplificationMeasures, largest_singular_value
from tests.helpers.studied import CLASSES, CPU, CROP, FORMAT, PREPROCESS, images, one_of, vit


def measures_of(network, **settings):
    return AmplificationMeasures(
        network, preprocess=PREPROCESS, format=FORMAT, settings=Amplification(**settings), device=CPU
    )


class Linear(nn.Module):
    """A network whose blocks multiply each token by a matrix."""

    def __init__(self, *matrices_DD):
        super().__init__()
        self.matrices = matrices_DD
        self.blocks = nn.Sequential(*(nn.Linear(len(each), len(each), bias=False) for each in matrices_DD))
        with torch.no_grad():
            for block, matrix in zip(self.blocks, matrices_DD, strict=True):
                block.weight.copy_(matrix)

    def forward(self, images):
        tokens = images.flatten(2).transpose(1, 2)
        return self.blocks(tokens).mean(1)


@pytest.mark.parametrize("exact_below", [0, 1024])
def test_known_blocks_have_known_values(exact_below):
    """An orthogonal block has 1, twice the identity 2, and a block that ignores its input 0."""
    orthogonal = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    network = Linear(orthogonal, 2 * torch.eye(3), torch.zeros(3, 3))
    for row in measures_of(network, exact_below=exact_below).measure(images()):
        assert row["values"] == pytest.approx([1, 2, 0], abs=1e-5)
        assert row["exact"] == [exact_below > 0] * 3


def test_power_iteration_comes_within_a_hundredth_of_the_full_jacobian():
    """On a Vision Transformer of width 64, after 60 iterations: from below, and not above it. After 10 it is up to 6 %
    too low here, because the largest singular values lie near each other.
    Oracle: torch.autograd's Jacobian, one block at a time, and its singular values in float64.
    """
    network, studied = vit(embed_dim=64, depth=3, spread=0.1), images(1)
    (row,) = measures_of(network, iterations=60, exact_below=0).measure(studied)
    (exact,) = measures_of(network, exact_below=17 * 64).measure(studied)
    oracle = singular_values(network, studied.pixels[0])
    assert exact["values"] == pytest.approx(oracle, rel=1e-4)
    assert (row["exact"], exact["exact"]) == ([False] * 3, [True] * 3)
    for value, truth in zip(row["values"], oracle, strict=True):
        assert 0.99 * truth < value < (1 + 1e-5) * truth


def test_more_iterations_never_lower_the_bound():
    values = [
        measures_of(vit(), iterations=iterations, exact_below=0).measure(images(1))[0]["values"]
        for iterations in (1, 2, 5, 20)
    ]
    for fewer, more in itertools.pairwise(values):
        assert all(one <= other * (1 + 1e-5) for one, other in zip(fewer, more, strict=True))


def test_a_row_does_not_depend_on_the_images_beside_it():
    network, studied = vit(), images(3)
    together = measures_of(network, exact_below=0).measure(studied)
    assert [measures_of(network, exact_below=0).measure(one_of(studied, n))[0] for n in range(3)] == together


def test_the_start_comes_from_the_seed():
    measures, studied = measures_of(vit(), iterations=1, exact_below=0), images(1)
    assert measures.measure(studied) != measures.measure(studied._replace(seeds=[1]))


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("deit_tiny_distilled_patch16_224", {"depth": 2, "patch_size": 4, "embed_dim": 32, "num_heads": 2}),
        ("cait_xxs24_224", {"depth": 2, "patch_size": 4, "embed_dim": 32, "num_heads": 2}),
        ("xcit_nano_12_p8_224", {"depth": 2}),  # its blocks take the grid's height and width, too
        ("beit_base_patch16_224", {"depth": 2, "patch_size": 4, "embed_dim": 32, "num_heads": 2}),
    ],
)
def test_transformers_of_timm_are_measured(architecture, options):
    """Power iteration stays below the exact value and comes near it."""
    torch.manual_seed(0)
    network = timm.create_model(architecture, img_size=CROP, num_classes=CLASSES, **options).eval()
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    (bound,) = measures_of(network, iterations=60, exact_below=0).measure(images(1))
    (exact,) = measures_of(network, exact_below=18 * 128).measure(images(1))
    assert exact["exact"] == [True, True]
    for value, truth in zip(bound["values"], exact["values"], strict=True):
        assert 0.97 * truth < value < (1 + 1e-4) * truth


def test_values_of_blocks_that_change_the_shape_are_exact_up_to_the_limit_of_both_sides():
    """The limit counts the larger of input and output."""
    matrix = torch.randn(3, 50)
    for limit, exact in [(49, False), (50, True)]:
        found = largest_singular_value(
            lambda row: row @ matrix, torch.ones(3), torch.ones(3), Amplification(iterations=60, exact_below=limit)
        )
        assert found.exact is exact
        assert found.value == pytest.approx(float(torch.linalg.svdvals(matrix)[0]), rel=1e-3)


def test_activations_that_are_not_finite_give_a_row_without_figures():
    network = vit()
    with torch.no_grad():
        network.blocks[0].attn.proj.bias[0] = float("nan")
    for exact_below in (0, 1024):
        assert measures_of(network, exact_below=exact_below).measure(images(1)) == [
            {"error": "an activation is not finite"}
        ]


def test_rows_have_the_columns_of_the_kind():
    assert list(measures_of(vit()).measure(images(1))[0]) == KIND.columns.names


class Uncalled(Linear):
    def forward(self, images):
        return self.blocks[0](images.flatten(2).transpose(1, 2)).mean(1)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: timm.create_model("resnet18", num_classes=CLASSES), "has no encoder blocks to measure; use a transf"),
        (lambda: Uncalled(torch.eye(3), torch.eye(3)), "calls only 1 of its 2 blocks; use another architecture"),
        (lambda: vit(img_size=32), "cannot classify or differentiate an image of 16 x 16 pixels"),
    ],
)
def test_networks_that_cannot_be_measured_are_refused_in_one_line(network, message):
    with pytest.raises(RequestError, match=message) as refused:
        measures_of(network().eval())
    assert "\n" not in str(refused.value)


def singular_values(network, image):
    """The largest singular value of each block of timm's forward, by autograd's Jacobian."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (PREPROCESS.mean, PREPROCESS.std))
    tokens = network._pos_embed(network.patch_embed(((image.permute(2, 0, 1) / 255 - mean) / std)[None]))
    values = []
    for block in network.blocks:
        jacobian = torch.autograd.functional.jacobian(block, tokens, vectorize=True).reshape(tokens.numel(), -1)
        values.append(float(torch.linalg.svdvals(jacobian.double())[0]))
        tokens = block(tokens).detach()
    return values
