"""A network that learns under ablations: equal to the one that votes, and differentiable."""

import copy

import pytest
import timm
import torch

from smoothcert.manifests.job import Ablation, Preprocess
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.networks.classifiers import has_tokens
from smoothcert.workers.votes.ablated_dense import AblatedDense
from smoothcert.workers.votes.ablated_forward import AblatedForward
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.voters import smooth
from tests.helpers.ablations import other_kinds

CROP, CLASSES = 16, 3
PREPROCESS = Preprocess(resize=None, crop=CROP)
ABLATIONS = [Ablation(kind="column", size=3), Ablation(kind="row", size=6), Ablation(kind="block", size=5, stride=3)]
KINDS = [ablations_of(ablation, CROP, CROP) for ablation in ABLATIONS]
NETWORKS = {
    "class token": ("vit_tiny_patch16_224", {}),
    "mean of tokens": ("vit_tiny_patch16_224", {"global_pool": "avg", "class_token": False}),
    "registers": ("vit_tiny_patch16_224", {"reg_tokens": 2, "no_embed_class": True}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "any size": ("vit_tiny_patch16_224", {"dynamic_img_size": True}),
}


def network_of(name, side=CROP, **options):
    torch.manual_seed(0)
    architecture, more = NETWORKS[name]
    small = {"patch_size": 4, "depth": 2, "embed_dim": 32, "num_heads": 2}
    network = timm.create_model(architecture, img_size=side, num_classes=CLASSES, **small, **more, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return network.eval()


def logits_of(forward, images, ablations, *, at_most=100):
    """[images, classes], each image under its ablation."""
    pixels = images.permute(0, 3, 1, 2).float() / 255
    logits = torch.zeros(len(images), CLASSES)
    for group in forward.groups(ablations, at_most=at_most):
        logits = logits.index_put((group.images,), forward(pixels, group))
    return logits


@pytest.mark.parametrize("masked_tokens", ["drop", "keep"])
@pytest.mark.parametrize("name", NETWORKS)
def test_learns_on_what_votes(name, masked_tokens):
    """In eval mode the logits are those of the engine, for every ablation of a mixture."""
    same_logits(network_of(name), PREPROCESS, masked_tokens)


@pytest.mark.parametrize("masked_tokens", ["drop", "keep"])
def test_learns_on_upsampled_images(masked_tokens):
    same_logits(network_of("class token", side=2 * CROP), PREPROCESS.model_copy(update={"upsample": 2}), masked_tokens)


@pytest.mark.parametrize("upsample", [1, 2])
def test_learns_on_all_pixels(upsample):
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=CLASSES).eval()
    same_logits(network, PREPROCESS.model_copy(update={"upsample": upsample}), "keep")


@pytest.mark.parametrize("masked_tokens", ["drop", "keep"])
def test_learns_on_any_kind_of_ablation(masked_tokens):
    same_logits(network_of("class token"), PREPROCESS, masked_tokens, [*other_kinds(CROP).values()])


def same_logits(network, preprocess, masked_tokens, kinds=KINDS):
    images = torch.randint(0, 256, (2, CROP, CROP, 3), dtype=torch.uint8)
    form = Format("a network", CLASSES, keep_hidden=masked_tokens == "keep")
    expected = torch.cat(
        [
            smooth(
                copy.deepcopy(network), geometry, preprocess=preprocess, format=form, device=torch.device("cpu")
            ).logits(images)
            for geometry in kinds
        ],
        dim=1,
    )
    if has_tokens(network):
        forward = AblatedForward(network, kinds, preprocess, keep_hidden=masked_tokens == "keep").eval()
    else:
        forward = AblatedDense(network, kinds, preprocess).eval()
    total = expected.shape[1]
    each = images.repeat_interleave(total, dim=0)
    logits = logits_of(forward, each, torch.arange(total).repeat(2), at_most=7)
    torch.testing.assert_close(logits.unflatten(0, (2, total)), expected, atol=1e-4, rtol=1e-4)


def test_the_gradient_is_that_of_the_whole_batch():
    """Summed over groups it is the gradient of every token computed with hidden ones out of sight.
    Oracle: timm's own forward, one image at a time, on its shown tokens.
    """
    network, oracle = network_of("class token"), network_of("class token")
    geometry = ablations_of(ABLATIONS[0], CROP, CROP)
    images = torch.randint(0, 256, (6, CROP, CROP, 3), dtype=torch.uint8)
    ablations, labels = torch.tensor([0, 1, 2, 9, 15, 4]), torch.tensor([0, 1, 2, 0, 1, 2])
    forward = AblatedForward(network, [geometry], PREPROCESS)
    torch.nn.functional.cross_entropy(logits_of(forward, images, ablations), labels).backward()

    mean, std = (torch.tensor(value)[:, None, None] for value in (PREPROCESS.mean, PREPROCESS.std))
    losses = []
    for image, ablation, label in zip(images, ablations, labels, strict=True):
        shown = torch.from_numpy(geometry.columns[ablation])
        pixels = (image.permute(2, 0, 1).float() / 255 * shown - mean) / std
        tokens = oracle._pos_embed(oracle.patch_embed(pixels[None]))
        token_columns = shown.reshape(-1, 4).any(1)
        kept = torch.cat([torch.tensor([True]), token_columns.repeat(CROP // 4)])
        logits = oracle.forward_head(oracle.norm(oracle.blocks(tokens[:, kept])))
        losses.append(torch.nn.functional.cross_entropy(logits, label[None]))
    torch.stack(losses).mean().backward()
    for (name, one), other in zip(network.named_parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4, msg=name)


def test_hidden_tokens_are_left_out():
    """Columns of 4 on tokens of 4 show one or two token columns: two groups, of 4 and 8 tokens."""
    geometry = ablations_of(Ablation(kind="column", size=4), CROP, CROP)
    forward = AblatedForward(network_of("class token"), [geometry], PREPROCESS)
    groups = list(forward.groups(torch.arange(16), at_most=100))
    assert [group.tokens.shape[1] for group in groups] == [4, 8]
    assert [group.images.tolist()[:3] for group in groups] == [[0, 4, 8], [1, 2, 3]]


def test_regularisers_of_timm_work():
    """Dropout of positions and drop path change the logits in training, and only there."""
    network = network_of("class token", pos_drop_rate=0.5, drop_path_rate=0.5)
    forward = AblatedForward(network, [ablations_of(ABLATIONS[0], CROP, CROP)], PREPROCESS)
    images, ablations = torch.randint(0, 256, (4, CROP, CROP, 3), dtype=torch.uint8), torch.arange(4)
    in_training = [logits_of(forward.train(), images, ablations) for _ in range(2)]
    in_use = [logits_of(forward.eval(), images, ablations) for _ in range(2)]
    assert not torch.equal(*in_training)
    assert torch.equal(*in_use)
