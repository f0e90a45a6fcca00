"""The term against sensitivity to patches equals a plain implementation, and its occlusion model climbs."""

import copy

import pytest
import torch
import torch.nn.functional as F

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.training.augmentation import Draws, generators
from smoothcert.workers.training.epochs import Batch
from smoothcert.workers.training.learner import EpochSums, Learner
from smoothcert.workers.training.losses import ForwardPass
from smoothcert.workers.training.patch_sensitivity import PatchSensitivityLoss, lowest
from smoothcert.workers.training.processes import Peers
from smoothcert.workers.training.recipe import forward_of, starting_network
from tests.helpers.jobs import CLASSES, CROP
from tests.helpers.together import together_of
from tests.helpers.trainings import SETTINGS, small_training

_CPU, _TOKEN, _SIDE = torch.device("cpu"), 4, CROP // 4
WEIGHT, SHARE = 0.7, 0.3  # far above the defaults, so that the term is no rounding error


def _setting(folder, store, ablation, masked_tokens="keep", weight=WEIGHT):
    training = small_training(
        folder,
        model=SETTINGS["model"] | {"masked_tokens": masked_tokens},
        ablation=ablation,
        regularisation={"label_smoothing": 0.1, "patch_sensitivity": {"weight": weight, "share": SHARE}},
    )
    torch.manual_seed(0)
    network = starting_network(training, store)
    forward = forward_of(training, network).train()
    chosen = training.regularisation.patch_sensitivity
    return training, network, forward, PatchSensitivityLoss(training, chosen, ForwardPass(training, forward), _CPU)


def _scores(occlusion, image):
    """The occlusion model written out, for one normalised image."""
    numbers = [
        (occlusion.embed.weight[0] * image[:, top : top + _TOKEN, left : left + _TOKEN]).sum()
        for top in range(0, CROP, _TOKEN)
        for left in range(0, CROP, _TOKEN)
    ]
    return occlusion.score.weight @ F.gelu(torch.stack(numbers))


def _outputs(network, image, tokens):
    """What each block of timm's network puts out, and the logits, for one normalised image."""
    x = network._pos_embed(network.patch_embed(image[None]))
    x = network.norm_pre(x[:, [0, *(1 + token for token in tokens)]])
    outputs = []
    for block in network.blocks:
        x = block(x)
        outputs.append(x)
    return outputs, network.forward_head(network.norm(x))


def _plain(network, occlusion, together, visible, preprocess, *, drop):
    """The loss, image by image; and the gradient of each token's visibility, as the term alone gives it."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    loss, visibilities = torch.zeros(()), []
    for pixels, shown_px, label, generator in zip(
        together.pixels, visible, together.targets, generators(together.seeds, _CPU), strict=True
    ):
        image = (pixels * shown_px - mean) / std
        places = [(token // _SIDE * _TOKEN, token % _SIDE * _TOKEN) for token in range(_SIDE**2)]
        of_token = [shown_px[:, top : top + _TOKEN, left : left + _TOKEN] for top, left in places]
        shown = [token for token in range(_SIDE**2) if of_token[token].any()]
        scores = _scores(occlusion, image).detach()
        border = torch.quantile(scores[shown], SHARE)
        noise = torch.empty_like(image).uniform_(generator=generator)
        mask = torch.ones(1, CROP, CROP)
        visibility = torch.tensor([float(token not in shown or scores[token] > border) for token in range(_SIDE**2)])
        visibility.requires_grad_()
        rows = [
            torch.cat([visibility[row * _SIDE + column].expand(1, _TOKEN, _TOKEN) for column in range(_SIDE)], 2)
            for row in range(_SIDE)
        ]
        mask = torch.where(shown_px, torch.cat(rows, 1), mask)
        occluded = image * mask + noise * (1 - mask)
        clean, logits = _outputs(network, image, shown if drop else range(_SIDE**2))
        noisy, _ = _outputs(network, occluded, shown if drop else range(_SIDE**2))
        term = sum(F.mse_loss(one, other) for one, other in zip(noisy, clean, strict=True)) / len(clean)
        loss = loss + F.cross_entropy(logits, label[None], label_smoothing=0.1) + WEIGHT * term
        visibilities.append(visibility)
    return loss, visibilities


@pytest.mark.parametrize(
    ("ablation", "masked_tokens"),
    [(None, "keep"), ({"kind": "column", "size": 7}, "keep"), ({"kind": "column", "size": 7}, "drop")],
)
def test_the_loss_equals_a_plain_implementation(tmp_path, store, ablation, masked_tokens):
    """Loss and gradients of the network to 1e-6: whole images, and columns with and without hidden tokens."""
    training, network, forward, loss = _setting(tmp_path, store, ablation, masked_tokens)
    together = together_of(training, forward, images=6)
    scored = loss(together, 0.0)
    scored.loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    network.zero_grad()
    expected, _ = _plain(
        network,
        loss.occlusion,
        together,
        forward.visible(together.group),
        training.preprocess,
        drop=masked_tokens == "drop",
    )
    expected.backward()
    plain = F.cross_entropy(scored.logits, together.targets, reduction="sum", label_smoothing=0.1)
    assert float((scored.loss - plain).detach()) > 0.01
    torch.testing.assert_close(scored.loss / len(together.pixels), expected / len(together.pixels), atol=1e-6, rtol=0)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("weight", [WEIGHT, 1e5])  # with a large one, the gradient of every token is cut to -1 or 1
def test_the_gradient_of_the_occlusion_model_is_reversed(tmp_path, store, weight):
    """Its own is that of the visibility of tokens, cut; its step goes up the term, by SGD with Nesterov's momentum."""
    training, network, forward, loss = _setting(tmp_path, store, {"kind": "column", "size": 7}, weight=weight)
    together = together_of(training, forward, images=6)
    loss(together, 0.0).loss.backward()
    gradients = [parameter.grad.clone() for parameter in loss.trained]
    before = [parameter.detach().clone() for parameter in loss.trained]

    expected, visibilities = _plain(
        network, loss.occlusion, together, forward.visible(together.group), training.preprocess, drop=False
    )
    of_tokens = [gradient * weight / WEIGHT for gradient in torch.autograd.grad(expected, visibilities)]
    assert any((gradient.abs() > 1).any() for gradient in of_tokens) == (weight > 1)
    inputs = forward.inputs(together.pixels, together.group)
    surrogate = sum(
        (gradient.clamp(-1, 1) * _scores(loss.occlusion, image)).sum()
        for gradient, image in zip(of_tokens, inputs, strict=True)
    )
    for gradient, plain in zip(gradients, torch.autograd.grad(surrogate, loss.trained), strict=True):
        torch.testing.assert_close(gradient, plain, atol=1e-4, rtol=1e-3)
        assert gradient.abs().max() > 0

    loss.step()
    for parameter, gradient, old in zip(loss.trained, gradients, before, strict=True):
        step = -gradient + 0.05 * old
        torch.testing.assert_close(parameter.detach(), old - 1e-4 * (step + 0.9 * step))


def test_the_lowest_tokens_of_those_shown():
    """As many as lie at or below the quantile, one at least; ties too."""
    scores = torch.tensor([[5.0, 1, 4, 2, 3, 0], [5, 1, 4, 2, 3, 0], [0, 0, 0, 0, 0, 0]])
    shown = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 0, 1, 0, 1, 0], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    assert lowest(scores, shown, 0.4).nonzero().tolist() == [[0, 1], [0, 3], [0, 5], [1, 4], [2, 0], [2, 1], [2, 2]]
    many = torch.rand(3, 196, generator=torch.Generator().manual_seed(0))
    chosen = lowest(many, torch.ones(3, 196, dtype=torch.bool), 0.1)
    assert torch.equal(chosen, many <= many.quantile(0.1, dim=1, keepdim=True))


@pytest.mark.parametrize("masked_tokens", ["drop", "keep"])
def test_only_what_an_ablation_shows_is_replaced(tmp_path, store, masked_tokens):
    """Hidden pixels stay black, and so do the hidden pixels of a token that is partly shown."""
    training, _, forward, loss = _setting(tmp_path, store, {"kind": "column", "size": 5}, masked_tokens)
    together = together_of(training, forward, images=8)
    inputs, visible = forward.inputs(together.pixels, together.group), forward.visible(together.group)
    replaced = loss.replaced(inputs, visible.float(), together.seeds).detach()
    changed = (replaced != inputs).any(dim=1, keepdim=True)
    assert not (changed & ~visible).any()
    noise = replaced[changed.expand_as(replaced)]
    assert 0 <= float(noise.min()) < 0.05 and 0.95 < float(noise.max()) < 1
    tokens = F.max_pool2d(changed.float(), _TOKEN).flatten(1).sum(dim=1)
    shown = F.max_pool2d(visible.float(), _TOKEN).flatten(1).sum(dim=1)
    assert torch.equal(tokens, ((shown - 1) * SHARE).floor() + 1)


def test_upsampled_images_have_noise_in_the_networks_pixels(tmp_path, store):
    """A token of 4 pixels is 2 of the image's; each of the network's pixels has noise of its own."""
    training = small_training(
        tmp_path,
        ablation=None,
        preprocess={"resize": None, "crop": CROP, "upsample": 2},
        regularisation={"patch_sensitivity": {"share": 0.5}},
    )
    forward = forward_of(training, starting_network(training, store))
    chosen = training.regularisation.patch_sensitivity
    loss = PatchSensitivityLoss(training, chosen, ForwardPass(training, forward), _CPU)
    scored = loss(together_of(training, forward, images=3), 0.0)
    assert loss.occlusion.score.weight.shape == (64, 64)
    assert torch.isfinite(scored.loss)


def test_a_network_without_blocks_is_refused(tmp_path, store):
    """In one line, before it learns."""
    model = {"architecture": "resnet10t", "classes": CLASSES, "masked_tokens": "keep"}
    training = small_training(tmp_path, model=model, regularisation={"patch_sensitivity": {}})
    with pytest.raises(RequestError, match=r"^regularisation\.patch_sensitivity: resnet10t has no blocks") as error:
        Learner(training, store, Peers(), _CPU)
    assert "\n" not in str(error.value)


def _batch(training):
    together = together_of(training, forward_of(training, starting_network(training, AnyStore(Storage()))), images=4)
    pixels = (together.pixels * 255).round().byte().permute(0, 2, 3, 1)
    return Batch(pixels, together.targets, Draws.of_epoch(0, 0, 4))


@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_224", "xcit_nano_12_p16_224", "cait_xxs24_224"])
def test_the_occlusion_model_is_kept_and_not_published(tmp_path, store, architecture):
    """A checkpoint holds it with its momentum; the weights are the network's alone. Dense networks learn, too."""
    options = {"depth": 2, "embed_dim": 32, "num_heads": 2}
    options |= {} if architecture.startswith("xcit") else {"patch_size": 4}
    training = small_training(
        tmp_path,
        model={"architecture": architecture, "options": options, "classes": CLASSES, "masked_tokens": "keep"},
        preprocess={"resize": None, "crop": CROP, "upsample": 2 if architecture.startswith("xcit") else 1},
        ablation=None,
        regularisation={"patch_sensitivity": {"weight": 1.0}},
    )
    batch, first = _batch(training), Learner(training, store, Peers(), _CPU)
    first.step(batch, EpochSums(_CPU, 1))
    state = copy.deepcopy(first.state())
    torch.manual_seed(7)
    second = Learner(training, store, Peers(), _CPU)
    second.load_state(copy.deepcopy(state))
    for learner in (first, second):
        torch.manual_seed(0)
        learner.step(batch, EpochSums(_CPU, 1))
    one, other = first.state()["loss"], second.state()["loss"]
    assert one["optimizer"]["state"][0]["momentum_buffer"].abs().max() > 0
    for name, value in one["model"].items():
        assert not torch.equal(value, state["loss"]["model"][name])
        assert torch.equal(value, other["model"][name])
    assert first.weights().keys() == starting_network(training, store).state_dict().keys()
