"""`smoothcert init` as a user calls it: `plan` accepts every file that it writes."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from smoothcert.manifests.ablation import ablation_of
from smoothcert.manifests.job import Model, Storage
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.init.init import column_of
from smoothcert.workers.networks.described_jobs import load_job
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.training.training_run import TrainingRun
from tests.helpers import jobs, reference
from tests.helpers.checkpoints import network_of
from tests.helpers.tars import png, tar_of, write_tar
from tests.helpers.trainings import small_training
from tests.helpers.transformers_folders import save
from tests.helpers.web_server import web_server


def _init(folder: Path, *arguments: object) -> str:
    """What the command prints; the file is FOLDER/job.yaml, and plan accepts it."""
    job = folder / "job.yaml"
    done = CliRunner().invoke(app, ["init", *map(str, arguments), "-o", str(job)])
    assert done.exit_code == 0, done.stderr
    planned = CliRunner().invoke(app, ["plan", str(job)])
    assert planned.exit_code == 0, planned.stderr
    return done.stdout


def _error(folder: Path, *arguments: object) -> str:
    job = folder / "job.yaml"
    done = CliRunner().invoke(app, ["init", *map(str, arguments), "-o", str(job)])
    assert done.exit_code == 2
    assert not job.exists()
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_folder_of_transformers(tars: Path, tmp_path: Path) -> None:
    """The job names the folder; crop and classes follow; what is beside the file has a relative path."""
    save(tmp_path / "network", "vit")
    printed = _init(tmp_path, tmp_path / "network", tars)
    content = yaml.safe_load((tmp_path / "job.yaml").read_text())
    assert content == {
        "name": "network on val",
        "images": {"shards": "val", "label": "cls"},
        "model": {"checkpoint": "network"},
        "ablation": {"kind": "column", "size": 3},
        "patches": [2, 3],
        "output": "runs",
    }
    assert "network on 2 tars" in printed
    assert "Nothing says that these weights were trained on ablations" in printed
    assert load_job(tmp_path / "job.yaml").model.class_names == ("cat", "dog", "fish")


def test_weights_of_finetune_say_how_they_were_trained(tars: Path, tmp_path: Path) -> None:
    """Network, pixels and ablation are those of the training; the file may have moved."""
    training = small_training(
        tmp_path,
        ablation=[{"kind": "column", "size": 3, "weight": 1}, {"kind": "row", "size": 5, "stride": 2, "weight": 2}],
        preprocess={"resize": 18, "crop": 16, "mean": [0.1, 0.2, 0.3], "interpolation": "bicubic"},
    )
    weights = network_of(
        Model(**training.model.model_dump(exclude={"checkpoint", "checkpoint_classes"}), checkpoint=""), 16
    )
    TrainingRun(training, AnyStore(Storage())).finish(weights.state_dict(), [])
    moved = Path(training.url, "weights.safetensors").rename(tmp_path / "moved.safetensors")
    printed = _init(tmp_path, moved, tars)
    job = load_job(tmp_path / "job.yaml")
    assert job.preprocess == training.preprocess
    assert job.model.options == training.model.options
    assert (job.ablation.kind, job.ablation.size, job.ablation.stride) == ("row", 5, 2)
    text = (tmp_path / "job.yaml").read_text()
    assert "Trained by `smoothcert finetune` on columns of 3 pixels, rows of 5 pixels, as the file says." in text
    assert "notice" not in printed


def test_weights_of_cutout_get_masks(tars: Path, tmp_path: Path) -> None:
    """Against a patch of 2 % of the pixels, since nothing votes under cutout."""
    model = {"architecture": "vit_tiny_patch16_224", "classes": 3, "masked_tokens": "keep", "options": jobs.OPTIONS}
    training = small_training(tmp_path, ablation={"kind": "cutout", "side": 9}, model=model)
    of_job = Model(**training.model.model_dump(exclude={"checkpoint", "checkpoint_classes"}), checkpoint="")
    TrainingRun(training, AnyStore(Storage())).finish(network_of(of_job, 16).state_dict(), [])
    _init(tmp_path, Path(training.url, "weights.safetensors"), tars)
    assert load_job(tmp_path / "job.yaml").ablation == ablation_of({"kind": "mask", "threat": 2, "per_axis": 3})
    assert "Trained by `smoothcert finetune` on cutout of 9 pixels" in (tmp_path / "job.yaml").read_text()


def test_weights_of_whole_images_get_the_usual_ablation(tars: Path, tmp_path: Path) -> None:
    """The training names none; the job says what the weights have seen."""
    training = small_training(tmp_path, ablation=None)
    model = Model(**training.model.model_dump(exclude={"checkpoint", "checkpoint_classes"}), checkpoint="")
    TrainingRun(training, AnyStore(Storage())).finish(network_of(model, 16).state_dict(), [])
    _init(tmp_path, Path(training.url, "weights.safetensors"), tars)
    assert load_job(tmp_path / "job.yaml").ablation.kind == "column"
    assert "Trained by `smoothcert finetune` on whole images" in (tmp_path / "job.yaml").read_text()


def test_weights_that_only_their_shapes_describe(tars: Path, tmp_path: Path) -> None:
    """The network is the one of the shapes, and both the file and the output ask the user to check it."""
    weights = jobs.write_weights(tmp_path / "weights.pt")
    printed = _init(tmp_path, weights, tars)
    job = load_job(tmp_path / "job.yaml")
    assert (job.model.architecture, job.model.classes, job.preprocess.crop) == ("vit_tiny_patch16_224", 3, 16)
    for text in (" ".join((tmp_path / "job.yaml").read_text().split()), printed):
        assert "check that it is the right one" in text.replace("# ", "")


def test_a_file_of_the_reference_was_probably_trained_on_ablations(tars: Path, tmp_path: Path) -> None:
    """Its own normaliser gives mean and std."""
    options = {"patch_size": 4, "depth": 1}
    network = network_of(Model(architecture="vit_tiny_patch16_224", options=options, classes=3, checkpoint=""), 16)
    torch.save({"model": reference.state_dict(network)}, tmp_path / "reference.pt")
    printed = _init(tmp_path, tmp_path / "reference.pt", tars)
    assert "probably trained on ablations" in printed
    job = load_job(tmp_path / "job.yaml")
    normaliser = reference.state_dict(network)
    assert list(job.preprocess.mean) == pytest.approx(normaliser["module.normalizer.new_mean"].flatten().tolist())
    assert list(job.preprocess.std) == pytest.approx(normaliser["module.normalizer.new_std"].flatten().tolist())


def test_small_images_are_certified_in_their_own_pixels(tmp_path: Path) -> None:
    """A network for 224 pixels sees each of the 32 x 32 pixels seven times along both sides."""
    write_tar(tmp_path, tar_of([("a.png", png(32, 32)), ("a.cls", b"3")]), "a.tar")
    done = CliRunner().invoke(app, ["init", "resnet18", str(tmp_path), "-o", str(tmp_path / "job.yaml")])
    assert done.exit_code == 0, done.stderr
    job = load_job(tmp_path / "job.yaml")
    assert (job.preprocess.resize, job.preprocess.crop, job.preprocess.upsample) == (None, 32, 7)
    assert (job.ablation.size, job.patches, job.model.masked_tokens) == (4, (4, 5, 6), "keep")


def test_what_the_user_sets_wins(tars: Path, tmp_path: Path) -> None:
    """Sections are joined key by key, and an ablation is replaced."""
    weights = jobs.write_weights(tmp_path / "weights.pt")
    settings = ["ablation={kind: block, size: 5}", "preprocess.mean=[0.1, 0.2, 0.3]", "execution.actors=1", "name=mine"]
    _init(tmp_path, weights, tars, *(part for setting in settings for part in ("--set", setting)))
    job = load_job(tmp_path / "job.yaml")
    assert (job.ablation.kind, job.ablation.size, job.name) == ("block", 5, "mine")
    assert (job.preprocess.mean, job.execution.actors) == ((0.1, 0.2, 0.3), 1)


def test_a_list_of_tars_stays_one(tars: Path, tmp_path: Path) -> None:
    """DATA shows what the images are; the user may name more of them."""
    weights, both = jobs.write_weights(tmp_path / "weights.pt"), [str(tars / "00.tar"), str(tars / "01.tar")]
    _init(tmp_path, weights, tars, "--set", f"images.shards=[{', '.join(both)}]")
    assert load_job(tmp_path / "job.yaml").images.shards == tuple(both)


def test_what_follows_from_a_setting_follows_from_the_users(tars: Path, tmp_path: Path) -> None:
    """Another crop gives another column and other patches; a comment about a section that the user wrote is gone."""
    weights = jobs.write_weights(tmp_path / "weights.pt")
    _init(tmp_path, weights, tars, "--set", "ablation.stride=2")
    job = load_job(tmp_path / "job.yaml")
    assert (job.ablation.kind, job.ablation.size, job.ablation.stride) == ("column", 3, 2)
    (tmp_path / "job.yaml").unlink()
    write_tar(tars, tar_of([("a.png", png(32, 32)), ("a.cls", b"1")]), "00.tar")
    (tars / "01.tar").unlink()
    done = CliRunner().invoke(
        app,
        ["init", "resnet18", str(tars), "-o", str(tmp_path / "job.yaml"), "--set", "preprocess={crop: 64, resize: 64}"],
    )
    assert done.exit_code == 0, done.stderr
    job = load_job(tmp_path / "job.yaml")
    assert (job.preprocess.crop, job.preprocess.upsample, job.ablation.size, job.patches) == (64, 1, 6, (7, 10, 12))
    assert "32 x 32" not in (tmp_path / "job.yaml").read_text()


def test_keys_of_urls_stay_in_the_urls(tars: Path, tmp_path: Path) -> None:
    """The name of the job goes into run.json and tables; the file keeps the URLs, for it must reach the data."""
    weights = jobs.write_weights(tmp_path / "weights.pt")
    with web_server() as server:
        server.files |= {"/w.pt": weights.read_bytes(), "/a.tar": (tars / "00.tar").read_bytes()}
        url = f"{server.url}/a.tar?sig=SECRET"
        done = CliRunner().invoke(app, ["init", f"{server.url}/w.pt?sig=SECRET", url, "-o", str(tmp_path / "job.yaml")])
    assert done.exit_code == 0, done.stderr
    assert "SECRET" not in done.stdout
    job = load_job(tmp_path / "job.yaml")
    assert (job.name, job.images.shards) == ("w.pt on a.tar", url)


def test_json_names_the_file_and_the_notices(tars: Path, tmp_path: Path) -> None:
    """On stdout, alone."""
    weights, job = jobs.write_weights(tmp_path / "weights.pt"), tmp_path / "job.yaml"
    done = CliRunner().invoke(app, ["init", str(weights), str(tars), "-o", str(job), "--json"])
    answer = json.loads(done.stdout)
    assert answer["path"] == str(job)
    training, pixels = answer["notices"]
    assert "Nothing says that these weights were trained on ablations" in training
    assert "correct them if these weights were trained with others" in pixels


def test_errors_are_one_line_and_leave_no_file(tars: Path, tmp_path: Path) -> None:
    """Each says what to do."""
    weights = jobs.write_weights(tmp_path / "weights.pt")
    assert "timm has no resnet50.bogus; it has resnet50.a1_in1k, " in _error(tmp_path, "resnet50.bogus", tars)
    assert "did you mean resnet50?" in _error(tmp_path, "resnet5O", tars)
    assert "holds no tars; `smoothcert pack" in _error(tmp_path, weights, tmp_path)
    assert "has no classes" in _error(tmp_path, "vit_small_patch14_dinov2", tars)
    assert "patches: 17 too large" in _error(tmp_path, weights, tars, "--set", "patches=[17]")
    existing = tmp_path / "mine.yaml"
    existing.write_text("precious")
    done = CliRunner().invoke(app, ["init", str(weights), str(tars), "-o", str(existing)])
    assert (done.exit_code, existing.read_text()) == (2, "precious")
    assert "is there already; name a new file" in done.stderr


def test_the_proportion_of_the_column() -> None:
    """That of Salman et al. at both of their sizes, and at least one pixel."""
    assert [column_of(crop) for crop in (1, 8, 28, 32, 64, 128, 224, 384)] == [2, 2, 4, 4, 6, 12, 19, 32]
