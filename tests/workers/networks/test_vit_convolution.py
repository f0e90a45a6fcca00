"""A Vision Transformer with a convolution in place of attention: what it computes, and that it trains and votes."""

from pathlib import Path

import pytest
import timm
import torch

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Job, Model, Storage
from smoothcert.workers.networks.classifiers import build_classifier, has_tokens
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.training.curves import Figures
from smoothcert.workers.training.loop import train
from smoothcert.workers.votes.voters import load_voter
from tests.helpers.trainings import small_training

OPTIONS = {"patch_size": 4, "depth": 2, "embed_dim": 24, "num_heads": 3}
MODEL = Model(architecture="vit_convolution", options=OPTIONS, classes=3, masked_tokens="keep", checkpoint="")


def test_a_token_is_mixed_with_its_neighbours():
    """By hand: three groups of eight channels, nothing beyond the border."""
    mixing = build_classifier(MODEL, 16).blocks[0].attn
    tokens = torch.randn(2, 16, 24)
    mixed = torch.zeros(2, 16, 24)
    for token in range(16):
        for neighbour in range(16):
            down, right = neighbour // 4 - token // 4, neighbour % 4 - token % 4
            if max(abs(down), abs(right)) <= 1:
                for group in range(3):
                    channels = slice(8 * group, 8 * group + 8)
                    weights = mixing.convolution.weight[channels, :, down + 1, right + 1].detach()
                    mixed[:, token, channels] += tokens[:, neighbour, channels] @ weights.T
    mixed += mixing.convolution.bias.detach()
    expected = mixed @ mixing.proj.weight.detach().T + mixing.proj.bias.detach()
    torch.testing.assert_close(mixing(tokens).detach(), expected, atol=1e-5, rtol=0)


def test_it_has_the_size_of_the_network_that_it_is_compared_with():
    """Width, depth and, but for biases, the number of weights."""
    options = {"patch_size": 4, "depth": 6}
    without = build_classifier(MODEL.model_copy(update={"options": options}), 32)
    attending = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, num_classes=3, class_token=False, global_pool="avg", **options
    )

    def weights(network):
        return sum(parameter.numel() for parameter in network.parameters() if parameter.ndim > 1)

    assert weights(without) == weights(attending)
    assert without.pos_embed.shape == attending.pos_embed.shape


def test_its_tokens_cannot_be_left_out():
    """It is refused in one line."""
    assert not has_tokens(build_classifier(MODEL, 16))
    with pytest.raises(RequestError, match=r"^model\.masked_tokens: vit_convolution .*; set .* keep$"):
        build_classifier(MODEL.model_copy(update={"masked_tokens": "drop"}), 16)


@pytest.mark.parametrize("option", ["class_token", "global_pool"])
def test_options_that_do_not_fit_are_one_line(option):
    """A class token has no neighbours."""
    model = MODEL.model_copy(update={"options": OPTIONS | {option: "token"}})
    with pytest.raises(RequestError, match=f"^model: timm cannot build vit_convolution .*{option}") as error:
        build_classifier(model, 16)
    assert "\n" not in str(error.value)


def test_it_trains_and_votes(tmp_path):
    """`finetune` makes its weights, and a job votes with them as the network itself does."""
    model = {"architecture": "vit_convolution", "options": OPTIONS, "classes": 3, "masked_tokens": "keep"}
    training = small_training(
        tmp_path,
        model=model,
        ablation={"kind": "column", "size": 5},
        regularisation={"patch_sensitivity": {}, "drop_path": 0.1},
        validation={"images": {"shards": "tars"}, "patches": [2]},
    )
    curve = [event for event in train(training) if isinstance(event, Figures)]
    assert curve[-1].ablation_accuracy is not None
    weights = Path(training.url, "weights.safetensors")
    job = Job(
        name="job",
        images={"shards": "x"},
        model=model | {"checkpoint": str(weights)},
        preprocess=training.preprocess,
        ablation={"kind": "column", "size": 5},
        output="y",
    )
    with AnyStore(Storage()).local(str(weights)) as file:
        voter = load_voter(job, file, None, torch.device("cpu"))
    assert voter.votes(torch.zeros(1, 16, 16, 3, dtype=torch.uint8)).classes.shape == (1, 16)
