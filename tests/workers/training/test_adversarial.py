"""Adversarial training: the attack follows its recipe step by step, and the losses equal plain loops over images."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from smoothcert.manifests.training import Adversarial, load_training
from smoothcert.pipeline.commands.certify import EXAMPLES
from smoothcert.workers.training.adversarial import AdversarialLoss, Attack
from smoothcert.workers.training.augmentation import generators
from smoothcert.workers.training.curves import Figures
from smoothcert.workers.training.loop import train
from smoothcert.workers.training.losses import ForwardPass
from smoothcert.workers.training.recipe import forward_of, starting_network
from tests.helpers.jobs import CLASSES, write_shards
from tests.helpers.together import together_of
from tests.helpers.trainings import SETTINGS, small_training

_CPU = torch.device("cpu")


def _points(attack, image, slopes, epochs, seed=0.3):
    """The points at which the attack asks for a gradient, then its result, on one image; the gradient is `slopes`."""
    points = []

    def raised(pixels):
        points.append(pixels.detach().clone())
        return (pixels * slopes).sum()

    visible = torch.ones(1, 1, *image.shape[2:], dtype=torch.bool)
    points.append(attack.perturb(raised, image, visible, generators(torch.tensor([seed]), _CPU), epochs))
    return [point.flatten().tolist() for point in points]


IMAGE = torch.tensor([0.5, 0.02, 0.5, 0.99]).reshape(1, 1, 2, 2)
SLOPES = torch.tensor([3.0, -1.0, 0.0, 0.001]).reshape(1, 1, 2, 2)


def test_eps_and_step_by_hand():
    """eps 4/255 in 3 steps of 1.5 x 4/255 / 3 = 2/255; every step ends within eps and from 0 to 1."""
    chosen = Adversarial(eps="4/255", steps=3, warmup_epochs=0)
    assert (chosen.eps, chosen.step) == pytest.approx((4 / 255, 2 / 255))
    assert Adversarial(eps=0.1, steps=2, step_size="1/100").step == 0.01
    start, *points = _points(Attack(chosen), IMAGE, SLOPES, epochs=0)
    assert len(points) == 3
    for before, after in pairwise([start, *points]):
        for pixel, slope, old, new in zip(IMAGE.flatten().tolist(), [1, -1, 0, 1], before, after, strict=True):
            nearest = min(max(old + slope * 2 / 255, pixel - 4 / 255), pixel + 4 / 255)
            assert new == pytest.approx(min(max(nearest, 0), 1), abs=1e-6)


def test_eps_rises_through_the_warm_up():
    """0, a quarter, a half, all of it, and no more; the step stays, so one step ends at the border of a small eps."""
    attack = Attack(Adversarial(eps=0.1, steps=1, warmup_epochs=4))
    assert [attack.eps_after(epochs) for epochs in (0, 1, 2, 4, 9)] == pytest.approx([0, 0.025, 0.05, 0.1, 0.1])
    assert Attack(Adversarial(eps=0.1, warmup_epochs=0)).eps_after(0) == 0.1
    assert _points(attack, IMAGE, SLOPES, epochs=0)[-1] == pytest.approx(IMAGE.flatten().tolist())
    moved = _points(attack, IMAGE, torch.ones_like(IMAGE), epochs=1)[-1]
    assert moved == pytest.approx([0.525, 0.045, 0.525, 1.0])


def test_a_step_of_l2_goes_along_the_gradient():
    """Its length is that of a step, and the way back is straight towards the image."""
    chosen = Adversarial(eps=0.05, norm="l2", steps=2, step_size=0.03, warmup_epochs=0)
    image = torch.full((1, 1, 2, 2), 0.5)
    start, *points = (np.array(point) for point in _points(Attack(chosen), image, SLOPES, epochs=0))
    direction = SLOPES.flatten().numpy() / np.linalg.norm(SLOPES.flatten().numpy())
    for before, after in pairwise([start, *points]):
        shift = before + 0.03 * direction - 0.5
        assert after == pytest.approx(0.5 + shift * min(1, 0.05 / np.linalg.norm(shift)), abs=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_start_is_uniform(norm):
    """2,000 images of 2 x 1 pixels. Linf: mean and variance of a uniform number; l2: of the square of a radius."""
    images = torch.full((2000, 1, 2, 1), 0.5)
    starts = []
    Attack(Adversarial(eps=0.2, norm=norm, warmup_epochs=0)).perturb(
        lambda pixels: starts.append(pixels.detach()) or pixels.sum(),
        images,
        torch.ones(2000, 1, 2, 1, dtype=torch.bool),
        generators(torch.from_numpy(np.random.default_rng(0).random(2000)), _CPU),
        0,
    )
    shifts = (starts[0] - 0.5).flatten(1) / 0.2
    uniform = shifts / 2 + 0.5 if norm == "linf" else (shifts**2).sum(dim=1)
    assert float(uniform.min()) >= 0 and float(uniform.max()) <= 1 + 1e-5
    assert float(uniform.mean()) == pytest.approx(1 / 2, abs=0.02)
    assert float(uniform.var()) == pytest.approx(1 / 12, abs=0.01)
    assert float(shifts.mean()) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("masked_tokens", ["drop", "keep"])
def test_only_the_pixels_that_are_shown_are_perturbed(tmp_path, store, masked_tokens, norm):
    """Nothing outside the column; inside within eps, from 0 to 1, and nearly as far as allowed."""
    eps = {"linf": 0.1, "l2": 0.5}[norm]
    training = small_training(
        tmp_path,
        model=SETTINGS["model"] | {"masked_tokens": masked_tokens},
        adversarial={"eps": eps, "norm": norm, "steps": 3, "warmup_epochs": 0},
    )
    forward = forward_of(training, starting_network(training, store))
    together = together_of(training, forward, images=12)
    loss = AdversarialLoss(training, training.adversarial, ForwardPass(training, forward))
    perturbed = loss._perturbed(together, 0.0)
    shift, visible = perturbed - together.pixels, forward.visible(together.group).expand_as(perturbed)
    assert not shift[~visible].any()
    assert float(perturbed.min()) >= 0 and float(perturbed.max()) <= 1
    lengths = shift.abs().amax(dim=(1, 2, 3)) if norm == "linf" else shift.flatten(1).norm(dim=1)
    assert float(lengths.max()) <= eps + 1e-6
    assert float(lengths.min()) > 0.5 * eps


def _plain_loop(network, preprocess, together, visible, chosen, smoothing):
    """Loss and gradients image by image, in timm's own network on masked images; the attack is written out, too."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    losses = []
    for image, shown, label, generator in zip(
        together.pixels, visible, together.targets, generators(together.seeds, _CPU), strict=True
    ):

        def logits(pixels, shown=shown):
            return network(((pixels * shown - mean) / std)[None])

        network.eval()
        moved = image + chosen.eps * torch.empty_like(image).uniform_(-1, 1, generator=generator) * shown
        moved = moved.clamp(0, 1)
        with torch.no_grad():
            clean = logits(image).softmax(dim=1)
        for _ in range(chosen.steps):
            moved = moved.detach().requires_grad_()
            if chosen.loss == "ce":
                raised = -logits(moved).log_softmax(dim=1)[0, label]
            else:
                raised = (clean * (clean.log() - logits(moved).log_softmax(dim=1))).sum()
            raised.backward()
            stepped = moved.detach() + 1.5 * chosen.eps / chosen.steps * moved.grad.sign()
            moved = torch.minimum(torch.maximum(stepped, image - chosen.eps), image + chosen.eps).clamp(0, 1)
        network.train()
        network.zero_grad()
        if chosen.loss == "ce":
            losses.append(F.cross_entropy(logits(moved), label[None], label_smoothing=smoothing))
        else:
            clean = logits(image)
            divergence = clean.softmax(dim=1) * (clean.log_softmax(dim=1) - logits(moved).log_softmax(dim=1))
            natural = F.cross_entropy(clean, label[None], label_smoothing=smoothing)
            losses.append(natural + chosen.beta * divergence.sum())
    total = torch.stack(losses).sum()
    total.backward()
    return total.detach(), {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("loss", ["ce", "trades"])
@pytest.mark.parametrize("ablation", [{"kind": "column", "size": 5}, None])
def test_loss_and_gradient_equal_a_plain_loop(tmp_path, store, ablation, loss):
    """On columns and on whole images; in float64, because a step follows the sign of tiny gradients, too."""
    training = small_training(
        tmp_path,
        model=SETTINGS["model"] | {"masked_tokens": "keep"},
        ablation=ablation,
        regularisation={"label_smoothing": 0.1},
        adversarial={"eps": "8/255", "steps": 2, "warmup_epochs": 0, "loss": loss, "beta": 3},
    )
    torch.manual_seed(0)
    network = starting_network(training, store).double()
    with torch.no_grad():  # far from the start, where all predictions are alike
        network.head.weight.normal_()
    forward = forward_of(training, network).train()
    together = together_of(training, forward, images=6)
    together = together._replace(pixels=together.pixels.double())
    assert len(together.pixels) == 6
    scored = AdversarialLoss(training, training.adversarial, ForwardPass(training, forward))(together, 0.0)
    scored.loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    expected, expected_gradients = _plain_loop(
        network, training.preprocess, together, forward.visible(together.group), training.adversarial, 0.1
    )
    torch.testing.assert_close(scored.loss.detach().double(), expected, atol=1e-5, rtol=1e-5)
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-4, rtol=1e-4, msg=name)


def test_the_attack_raises_the_loss(tmp_path, store):
    """More than a random point within eps does."""
    losses = {}
    for name, settings in {"start": {"steps": 1, "step_size": 1e-9}, "attack": {"steps": 5}}.items():
        chosen = {"eps": 0.1, "warmup_epochs": 0, **settings}
        training = small_training(tmp_path, adversarial=chosen)
        torch.manual_seed(0)
        forward = forward_of(training, starting_network(training, store))
        together = together_of(training, forward, images=12)
        loss = AdversarialLoss(training, training.adversarial, ForwardPass(training, forward))
        losses[name] = float(loss(together, 0.0).loss.detach())
    assert losses["attack"] > losses["start"]


NETWORKS = {
    "XCiT-S12": [],
    "CaiT-S12": ["model.architecture=cait_s24_224", "model.options.init_values=1.0", "model.options.patch_size=8"],
    "DeiT-S": ["model.architecture=deit_small_patch16_224", "model.options.patch_size=8"],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_example_trains(tmp_path, name):
    """At a tiny size, for an epoch of two steps, each of its networks learns from perturbed images."""
    write_shards(tmp_path, 2, 4)
    tiny = [
        f"images.shards={tmp_path}/tars",
        f"output={tmp_path}",
        "validation=null",
        "model.options={embed_dim: 16, depth: 1, num_heads: 2}",
        f"model.classes={CLASSES}",
        "preprocess={resize: 40, crop: 32}",
        "execution={workers: 1, loaders: 0}",
        "batch_size=4",
        "epochs=1",
        "adversarial.warmup_epochs=0.5",
        "schedule.warmup_epochs=0",
    ]
    training = load_training(EXAMPLES / "imagenet1k-adversarial.yaml", [*tiny, *NETWORKS[name]])
    (figures,) = [event for event in train(training) if isinstance(event, Figures)]
    assert figures.images == 8 and np.isfinite(figures.train_loss)
