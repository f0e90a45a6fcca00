"""The training loop: however many processes, however often killed, the same weights; and they learn."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed as dist
import torch.multiprocessing

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.training import Training
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.training.curves import Figures
from smoothcert.workers.training.loop import train
from tests.helpers.house import HOUSE
from tests.helpers.jobs import CLASSES, CROP, samples, write_weights
from tests.helpers.tars import tar_of, write_tar
from tests.helpers.trainings import SETTINGS, small_training, write_training

RICH = {
    "optimizer": {"name": "adamw", "lr": 0.01, "clip_grad": 1.0},
    "schedule": {"name": "cosine", "warmup_epochs": 1},
    "regularisation": {"label_smoothing": 0.1, "drop_path": 0.2, "mixup": 0.5, "cutmix": 0.5},
    "augmentation": {"crop": "pad", "random": "rand-m5-n1", "color_jitter": 0.2},
    "ablation": [{"kind": "column", "size": 3}, {"kind": "block", "size": 6, "weight": 2}],
    "whole_share": 0.1,
    "ema": 0.9,
    "epochs": 4,
}
KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
import smoothcert.workers.training.loop
from smoothcert.manifests.training import load_training

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

smoothcert.workers.training.loop._STEPS_PER_REPORT = 1
if sys.argv[2] == "at the end":
    smoothcert.workers.training.loop.TrainingRun.finish = die
for event in smoothcert.workers.training.loop.train(load_training(sys.argv[1])):
    step = isinstance(event, smoothcert.workers.training.loop.Step) and (event.epoch, event.images)
    if sys.argv[2] == "in epoch 3" and step == (3, 8):
        die()
"""
KILLS = [
    pytest.param(RICH, "in epoch 3", [3, 4], id="cached"),
    pytest.param(RICH, "at the end", [4], id="weights missing"),
    pytest.param(
        {"cache": False, "optimizer": {"name": "muon"}, "execution": {"loaders": 2}, "ema": 0.9, "epochs": 4},
        "in epoch 3",
        [3, 4],
        id="streamed, muon",
    ),
    pytest.param(
        {"adversarial": {"eps": "8/255", "steps": 2, "warmup_epochs": 3, "loss": "trades"}, "epochs": 4},
        "in epoch 3",
        [3, 4],
        id="adversarial",
    ),
    pytest.param(
        {"regularisation": {"drop_path": 0.1, "patch_sensitivity": {"weight": 1.0}}, "epochs": 4},
        "in epoch 3",
        [3, 4],
        id="patch sensitivity",
    ),
]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def curve_of(training):
    return [event for event in train(training) if isinstance(event, Figures)]


def times_of(training):
    return {file: file.stat().st_mtime_ns for file in Path(training.url).rglob("*") if file.is_file()}


def weights_of(training):
    return safetensors.torch.load_file(f"{training.url}/weights.safetensors")


@pytest.mark.parametrize(("changes", "moment", "told"), KILLS)
def test_a_killed_training_ends_with_the_same_weights(tmp_path, changes, moment, told):
    """Killed in the third of four epochs, or before the weights are published: bit for bit as if never killed."""
    unbroken = small_training(tmp_path, **changes, output="unbroken")
    curve_of(unbroken)
    path = write_training(tmp_path, **changes, output="killed")
    environment = os.environ | {"PYTHONPATH": f"{HOUSE}/src:{HOUSE}", "CUDA_VISIBLE_DEVICES": ""}
    died = subprocess.run([sys.executable, "-c", KILLED, path, moment], env=environment, check=False, timeout=120)
    killed = small_training(tmp_path, **changes, output="killed")
    assert died.returncode == -signal.SIGKILL
    assert len(list(Path(killed.url, "checkpoints").glob("*.pt"))) == 1
    assert not Path(killed.url, "weights.safetensors").exists()
    assert [figures.epoch for figures in curve_of(killed)] == told
    files = [Path(training.url, "weights.safetensors").read_bytes() for training in (unbroken, killed)]
    assert files[0] == files[1]


def _one_of_two(rank, folder, meeting):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    for name, changes in TWO.items():
        list(train(small_training_again(folder, output=f"two-{name}", **changes)))
    dist.destroy_process_group()


# 13 images of 13 tars, in batches of 4: of the last batch, one process has an image and the other none.
TWO = {
    "cached": {"cache": True, "optimizer": {"lr": 0.5}, "ablation": [{"kind": "column", "size": 3}]},
    "streamed": {"cache": False, "batch_size": 26, "optimizer": {"lr": 0.5}},
    "patch sensitivity": {"regularisation": {"patch_sensitivity": {"weight": 1.0}}},
    # l2: the steps of linf follow signs, which rounding can turn.
    "adversarial": {"ablation": None, "adversarial": {"eps": 0.5, "norm": "l2", "steps": 2, "warmup_epochs": 1}},
}


def small_training_again(folder, **changes):
    """Without writing the tars again, which another process reads."""
    changed = SETTINGS | changes
    changed |= {"images": {"shards": str(folder / "tars")}, "output": str(folder / changed["output"])}
    return Training.model_validate(changed)


def test_two_processes_learn_as_one(tmp_path):
    """At equal batches the weights after each step are the same, so the gradients were."""
    small_training(tmp_path, tars=(13, 1))
    torch.multiprocessing.spawn(_one_of_two, args=(tmp_path, tmp_path / "meeting"), nprocs=2)
    for name, changes in TWO.items():
        one = small_training_again(tmp_path, output=f"one-{name}", **changes)
        curve = curve_of(one)
        together = small_training_again(tmp_path, output=f"two-{name}", **changes)
        assert (
            [figures.images for figures in curve] == [figures.images for figures in curve_of(together)] * 2 == [13, 13]
        )
        other = weights_of(together)
        for key, value in weights_of(one).items():
            torch.testing.assert_close(other[key], value, atol=1e-5, rtol=0, msg=f"{name} {key}")


def _one_of_two_with_a_damaged_end(rank, folder, meeting):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    with pytest.raises(RunError, match=r"images\.shards: 1 of \d+ images cannot be used"):
        list(train(small_training_again(folder, cache=False, batch_size=2, shuffle_images=1, output="damaged")))
    dist.destroy_process_group()


def test_processes_stay_in_step_where_a_last_batch_has_no_image(tmp_path):
    """One process has a batch more, and nothing in it can be learned from: both end the epoch together."""
    small_training(tmp_path, tars=(2, 3))
    write_tar(tmp_path / "tars", tar_of([*samples(3, 3), ("z.png", b"no image"), ("z.cls", b"1")]), "01.tar")
    torch.multiprocessing.spawn(
        _one_of_two_with_a_damaged_end, args=(tmp_path, tmp_path / "meeting"), nprocs=2, join=True
    )


def test_it_learns(tmp_path):
    """Noise of 15 images is learned by heart."""
    changes = {"optimizer": {"name": "adamw", "lr": 0.003}, "epochs": 40, "checkpoint_every_epochs": 40}
    changes |= {"schedule": {"name": "constant"}}
    curve = curve_of(small_training(tmp_path, ablation={"kind": "column", "size": 8}, **changes))
    assert curve[-1].train_loss < 0.5 * curve[0].train_loss
    assert curve[-1].train_accuracy > 0.8


_GRAY = {
    "model": SETTINGS["model"] | {"options": SETTINGS["model"]["options"] | {"in_chans": 1}},
    "preprocess": {"resize": None, "crop": CROP, "mean": 0.5, "std": 0.5},
}


@pytest.mark.parametrize(
    "augmentation",
    [{"crop": "pad", "padding": 2, "flip": 0.5}, {"crop": "resized"}, {"color_jitter": 0.4, "random": "rand-m6-n2"}],
)
def test_gray_images_are_augmented(tmp_path, augmentation):
    """A gray network learns under every kind of augmentation."""
    training = small_training(tmp_path, augmentation=augmentation, epochs=1, cache=False, **_GRAY)
    assert np.isfinite(curve_of(training)[-1].train_loss)


def test_what_is_complete_is_not_done_again(tmp_path):
    """A second call tells the last epoch; the curve is there as lines and, with matplotlib, as a picture."""
    training = small_training(tmp_path)
    first = curve_of(training)
    before = times_of(training)
    assert curve_of(training) == first[-1:]
    assert before == times_of(training)
    assert len(Path(training.url, "curve.jsonl").read_text().splitlines()) == 2
    pytest.importorskip("matplotlib")
    assert Path(training.url, "curve.png").read_bytes().startswith(b"\x89PNG")


def test_another_training_in_the_same_folder_is_refused(tmp_path):
    """One line with the keys that differ."""
    curve_of(small_training(tmp_path))
    with pytest.raises(RequestError, match=r"small was begun with other epochs, optimizer\.lr; .* or use another name"):
        curve_of(small_training(tmp_path, epochs=3, optimizer={"lr": 0.2}))


def test_a_bucket_is_as_good_as_a_folder(tmp_path, bucket):
    """Checkpoints are published and removed there, and a second call finds what is complete."""
    training = small_training(tmp_path, output=f"s3://{bucket}/trained")
    curve = curve_of(training)
    assert curve_of(training) == curve[-1:]
    there = [entry.url.rpartition("/")[2] for entry in AnyStore(training.storage).files(f"{training.url}/checkpoints")]
    assert "epoch-0002.pt" in there and not any("0001" in name for name in there)


def test_it_goes_on_from_a_checkpoint_with_a_new_head(tmp_path):
    """All weights but the head's are the checkpoint's: a learning rate of nearly nothing leaves them so."""
    file = write_weights(tmp_path / "start.pt", classes=7)
    model = {"architecture": "vit_tiny_patch16_224", "classes": CLASSES, "checkpoint": str(file)}
    options = {"patch_size": 4, "depth": 1, "embed_dim": 32, "num_heads": 2}
    with pytest.raises(RequestError, match=r"model\.checkpoint: .* does not fit"):
        curve_of(small_training(tmp_path, model=model | {"options": options}))
    model |= {"options": options, "checkpoint_classes": 7}
    training = small_training(tmp_path, model=model, optimizer={"lr": 1e-12}, epochs=1, name="b")
    curve_of(training)
    start = torch.load(file, weights_only=True)
    for key, value in weights_of(training).items():
        if key.startswith("head."):
            assert len(value) == CLASSES
        else:
            torch.testing.assert_close(value, start[key], atol=1e-6, rtol=0)


def test_a_mistake_does_not_take_the_name(tmp_path):
    """After the file is corrected the same name is free."""
    with pytest.raises(RequestError, match="sdg"):
        curve_of(small_training(tmp_path, optimizer={"name": "sdg"}))
    with pytest.raises(RequestError, match="loud"):
        curve_of(small_training(tmp_path, augmentation={"random": "loud"}))
    assert len(curve_of(small_training(tmp_path))) == 2


_RESNET = {"architecture": "resnet10t", "classes": CLASSES, "masked_tokens": "keep"}


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"model": _RESNET, "batch_size": 14}, RunError, "a batch norm cannot learn from a single image"),
        ({"cache": False, "execution": {"loaders": 4}}, RequestError, r"4 processes .* would read 3 tar\(s\)"),
        ({"optimizer": {"name": "sdg"}}, RequestError, r"optimizer: timm cannot make 'sdg'"),
        ({"optimizer": {"options": {"beta": 1}}}, RequestError, r"optimizer: timm cannot make 'momentum' with options"),
        ({"augmentation": {"random": "loud"}}, RequestError, r"augmentation\.random: timm does not understand 'loud'"),
        ({"images": {"shards": "nowhere"}}, RequestError, r"images\.shards: .*nowhere does not exist"),
        ({"model": {"architecture": "vit", "classes": 3}}, RequestError, r"model\.architecture: timm knows no 'vit'"),
        ({"optimizer": {"lr": 1e30}}, RunError, r"the loss is \S+ in epoch 1; lower optimizer\.lr"),
        ({"images": {"shards": "tars", "label": "txt"}}, RunError, r"15 of 15 images cannot be used"),
    ],
)
def test_each_mistake_is_one_line(tmp_path, changes, error, says):
    """What was found, where, and what to do."""
    with pytest.raises(error, match=says) as raised:
        curve_of(small_training(tmp_path, **changes))
    assert "\n" not in str(raised.value)
