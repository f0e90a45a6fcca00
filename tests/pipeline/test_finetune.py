"""`smoothcert finetune`: what it prints, what it leaves, how it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from smoothcert.manifests.job import load_job
from smoothcert.manifests.training import load_training
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.finetune import finetune
from smoothcert.workers.networks.classifiers import load_classifier
from tests.helpers.faults import injection, once
from tests.helpers.house import HOUSE
from tests.helpers.jobs import CLASSES
from tests.helpers.trainings import SETTINGS, write_training


def run(*arguments):
    return CliRunner().invoke(app, ["finetune", *map(str, arguments)])


def test_a_line_an_epoch_and_weights_that_a_job_takes(tmp_path):
    """Without a terminal: one line an epoch, then where the weights are; a job's model names them as they are."""
    result = run(write_training(tmp_path), "--set", "epochs=3")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split("]")[0] for line in lines[:3]] == ["[1/3", "[2/3", "[3/3"]
    assert lines[3:] == [str(tmp_path / "trained" / "small" / "weights.safetensors")]
    model = {key: SETTINGS["model"][key] for key in ("architecture", "options")}
    model |= {"checkpoint": lines[3], "classes": CLASSES}
    keys = {key: SETTINGS[key] for key in ("name", "images", "preprocess", "ablation", "output")}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(keys | {"model": model}))
    job = load_job(tmp_path / "job.yaml")
    load_classifier(job.model, job.preprocess, Path(job.model.checkpoint), None)


def test_json_gives_the_weights_and_the_last_figures(tmp_path, capsys):
    """One object on stdout, the lines of the epochs on stderr; a repeat says the same."""
    training = load_training(write_training(tmp_path))
    finetune(training, json_to=sys.stdout)
    out, err = capsys.readouterr()
    found = json.loads(out)
    folder = tmp_path / "trained" / "small"
    assert (found["training"], found["path"]) == ("small", str(folder))
    assert found["weights"] == str(folder / "weights.safetensors")
    assert found["figures"]["epoch"] == 2
    loss = f"loss {found['figures']['train_loss']:.3f}"
    assert [line.split(",")[0] for line in err.splitlines() if line.startswith("[2/2]")] == [f"[2/2] {loss}"]
    finetune(training, json_to=sys.stdout)
    assert json.loads(capsys.readouterr().out) == found


def test_labels_of_a_training_may_be_names(tmp_path):
    """Names give the same weights as the numbers for which they stand; a list of other classes is refused."""
    found = {}
    for kind, settings in (("numbers", {}), ("names", {"label_names": ["0", "1", "2"]})):
        (tmp_path / kind).mkdir()
        images = {"shards": "tars"} | settings
        result = run(write_training(tmp_path / kind, images=images, validation={"images": images}))
        assert result.exit_code == 0, result.output
        found[kind] = (tmp_path / kind / "trained" / "small" / "weights.safetensors").read_bytes()
    assert found["names"] == found["numbers"]
    result = run(tmp_path / "names" / "train.yaml", "--set", "images.label_names=[a, b]")
    assert (result.exit_code, "the list has 2 names, but the network has 3 classes" in result.stderr) == (2, True)


def test_held_out_images_are_counted_as_they_are_voted_on(tmp_path, monkeypatch):
    """A long validation does not look like a hang."""
    monkeypatch.setattr("smoothcert.pipeline.finetune._LINE_EVERY_S", 0.0)
    result = run(write_training(tmp_path, tars=(2, 20), validation={"images": {"shards": "tars"}}))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    held_out = [line for line in lines if "held-out" in line]
    assert held_out == [f"[2/2] {done} of 40 held-out images" for done in (16, 32, 40)]
    assert "ablations" in lines[lines.index(held_out[-1]) + 1]


def test_the_same_command_goes_on(tmp_path):
    """What is complete is held_out, not done again; another training under the name is refused."""
    path = write_training(tmp_path)
    first, again = run(path), run(path)
    assert again.stdout.splitlines() == first.stdout.splitlines()[-2:]
    other = run(path, "--set", "seed=1")
    assert other.exit_code == 2
    assert "was begun with other seed; put the old values back, or use another name" in other.stderr


def test_local_needs_no_ray(tmp_path):
    """--local trains in one process although the file names more, and where Ray cannot be imported."""
    path = write_training(tmp_path, execution={"workers": 2})
    script = "import sys; sys.modules['ray'] = None; from smoothcert.pipeline.cli import app; app()"
    command = [sys.executable, "-c", script, "finetune", str(path), "--local"]
    environment = os.environ | {"PYTHONPATH": f"{HOUSE}/src:{HOUSE}", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "trained" / "small" / "weights.safetensors").exists()


def test_a_mistake_is_one_line(tmp_path):
    """Exit code 2 and no traceback."""
    result = run(write_training(tmp_path), "--set", "optimizer.name=sdg")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "optimizer: timm cannot make 'sdg'" in result.stderr


@pytest.mark.slow
def test_two_processes_under_ray(tmp_path):
    """Ray Train's processes end with weights and the same lines; a mistake is still one line, and not tried again."""
    path = write_training(tmp_path)
    result = run(path, "--set", "execution.workers=2")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 3
    other = run(path, "--set", "execution.workers=2", "--set", "seed=1")
    assert other.exit_code == 2
    assert other.stderr.startswith("error: ") and "was begun with other seed" in other.stderr
    assert not other.stdout
    crowd = run(path, "--set", "execution={workers: 2, cpus_per_worker: 1000}")
    assert crowd.exit_code == 2
    assert "asks for 2 workers of 1000 CPUs and 0 GPUs each, but the cluster has room for 0" in crowd.stderr


@pytest.mark.slow
def test_a_lost_process_is_replaced(tmp_path):
    """All begin again from the newest checkpoint, and end with weights."""
    path = write_training(tmp_path, epochs=4, execution={"workers": 2})
    dying = f"""
import os
from pathlib import Path
epoch_of = _Trainer.epoch
def die_once():
    {once(tmp_path, "os.kill(os.getpid(), 9)")}
def dying(self, epoch):
    if epoch == 2 and self._peers.rank == 1:
        die_once()
    yield from epoch_of(self, epoch)
_Trainer.epoch = dying
"""
    command = [sys.executable, "-c", "from smoothcert.pipeline.cli import app; app()", "finetune", str(path)]
    environment = os.environ | injection(tmp_path, {"smoothcert.workers.training.loop": dying})
    result = subprocess.run(
        command, env=environment, cwd=HOUSE, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    epochs = [line[:5] for line in result.stdout.splitlines() if line.startswith("[")]
    assert epochs == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert "attempt 2" in result.stdout
    assert (tmp_path / "trained" / "small" / "weights.safetensors").exists()
