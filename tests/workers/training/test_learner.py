"""One step of a training: its gradient, its learning rate, its number format."""

import pytest
import safetensors.torch
import torch
import torch.multiprocessing

from smoothcert.workers.training.curves import Figures
from smoothcert.workers.training.loop import train
from tests.helpers.jobs import CROP
from tests.helpers.trainings import small_training


def curve_of(training):
    return [event for event in train(training) if isinstance(event, Figures)]


def weights_of(training):
    return safetensors.torch.load_file(f"{training.url}/weights.safetensors")


def test_a_batch_in_parts_is_the_same_step(tmp_path):
    """One image a forward gives the weights of whole groups a forward."""
    whole = small_training(tmp_path, name="whole")
    parts = small_training(tmp_path, name="parts", execution={"images_per_forward": 1})
    for training in (whole, parts):
        curve_of(training)
    for key, value in weights_of(whole).items():
        torch.testing.assert_close(weights_of(parts)[key], value, atol=1e-5, rtol=0, msg=key)


def test_several_views_of_an_image_count_as_one_image(tmp_path):
    """Views that are all alike give the weights and the figures of one view."""
    whole = {"kind": "column", "size": CROP, "stride": CROP}
    one, three = (
        small_training(tmp_path, name=f"views{views}", ablation=whole, views_per_image=views) for views in (1, 3)
    )
    for here, there in zip(curve_of(one), curve_of(three), strict=True):
        assert (there.images, there.left_out) == (here.images, here.left_out)
        assert there.train_loss == pytest.approx(here.train_loss, abs=1e-5)
        assert there.train_accuracy == pytest.approx(here.train_accuracy)
    for key, value in weights_of(one).items():
        torch.testing.assert_close(weights_of(three)[key], value, atol=1e-5, rtol=0, msg=key)


def test_views_move_the_weights(tmp_path):
    """Each shows another ablation, so the gradient is another one."""
    one, four = (small_training(tmp_path, name=f"views{views}", views_per_image=views) for views in (1, 4))
    for training in (one, four):
        curve_of(training)
    assert any(not torch.allclose(weights_of(four)[key], value) for key, value in weights_of(one).items())


def test_the_learning_rate_follows_the_schedule(tmp_path):
    """Steps fall by the rate; a warm-up rises through the first epoch: 3 of 4 batches before the last one's step."""
    steps = {"name": "step", "decay_epochs": 1, "decay_rate": 0.5}
    curve = curve_of(small_training(tmp_path, schedule=steps, epochs=3))
    assert [figures.lr for figures in curve] == pytest.approx([0.1, 0.05, 0.025])
    warm = small_training(tmp_path, name="warm", schedule={"name": "constant", "warmup_epochs": 1}, epochs=2)
    assert [figures.lr for figures in curve_of(warm)] == pytest.approx([0.1 * 12 / 15, 0.1])


def test_bfloat16_learns_nearly_the_same(tmp_path):
    """Autocast changes the loss of the first epoch by less than bfloat16's three digits would."""
    losses = [
        curve_of(small_training(tmp_path, name=precision, precision=precision, optimizer={"lr": 0.01}))[0].train_loss
        for precision in ("float32", "bfloat16")
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
