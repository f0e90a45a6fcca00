"""A network that learns under ablations: equal to the one that votes, and differentiable."""

import pytest
import timm
import torch

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.networks.transformers_vit import transformers_vit
from smoothcert.workers.votes.ablated_forward import AblatedForward
from tests.helpers.ablations import other_kinds
from tests.helpers.learners import ABLATIONS, CLASSES, CROP, MEAN_MASKS, PREPROCESS, check_same_logits, logits_of

NETWORKS = {
    "class token": ("vit_tiny_patch16_224", {}),
    "mean of tokens": ("vit_tiny_patch16_224", {"global_pool": "avg", "class_token": False}),
    "registers": ("vit_tiny_patch16_224", {"reg_tokens": 2, "no_embed_class": True}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "mean beside the class token": (
        transformers_vit.__name__,
        {"mlp_width": 48, "norm_eps": 1e-6, "head": "class_and_patches", "reg_tokens": 2, "swiglu": True},
    ),
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


@pytest.mark.parametrize("masked_tokens", ["drop", "keep"])
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_those_of_the_engine(name, masked_tokens):
    """In eval mode the logits are those of the engine, for every ablation of a mixture."""
    check_same_logits(network_of(name), PREPROCESS, masked_tokens)


@pytest.mark.parametrize("masked_tokens", ["drop", "keep"])
def test_logits_of_upsampled_images_are_those_of_the_engine(masked_tokens):
    check_same_logits(
        network_of("class token", side=2 * CROP), PREPROCESS.model_copy(update={"upsample": 2}), masked_tokens
    )


@pytest.mark.parametrize("masked_tokens", ["drop", "keep"])
def test_logits_are_those_of_the_engine_for_any_kind_of_ablation(masked_tokens):
    check_same_logits(network_of("class token"), PREPROCESS, masked_tokens, [*other_kinds(CROP).values()])


@pytest.mark.parametrize("upsample", [1, 2])
@pytest.mark.parametrize("masked_tokens", ["drop", "keep"])
def test_logits_are_those_of_the_engine_if_hidden_pixels_are_the_mean(masked_tokens, upsample):
    network, preprocess = (
        network_of("class token", upsample * CROP),
        PREPROCESS.model_copy(update={"upsample": upsample}),
    )
    check_same_logits(network, preprocess, masked_tokens, MEAN_MASKS)


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
    geometry = ablations_of(WindowAblation(kind="column", size=4), CROP, CROP)
    forward = AblatedForward(network_of("class token"), [geometry], PREPROCESS)
    groups = list(forward.groups(torch.arange(16), at_most=100))
    assert [group.tokens.shape[1] for group in groups] == [4, 8]
    assert [group.images.tolist()[:3] for group in groups] == [[0, 4, 8], [1, 2, 3]]


def test_regularisers_of_timm_work_in_training_alone():
    """Dropout of positions and drop path change the logits in training, and only there."""
    network = network_of("class token", pos_drop_rate=0.5, drop_path_rate=0.5)
    forward = AblatedForward(network, [ablations_of(ABLATIONS[0], CROP, CROP)], PREPROCESS)
    images, ablations = torch.randint(0, 256, (4, CROP, CROP, 3), dtype=torch.uint8), torch.arange(4)
    in_training = [logits_of(forward.train(), images, ablations) for _ in range(2)]
    in_use = [logits_of(forward.eval(), images, ablations) for _ in range(2)]
    assert not torch.equal(*in_training)
    assert torch.equal(*in_use)
