"""A job that names only a checkpoint of transformers is the job with everything written out."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from smoothcert.manifests import job as job_file
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.identity import identity_of
from smoothcert.manifests.job import Job
from smoothcert.manifests.suite import Suite
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.verify.check import verify
from smoothcert.workers.networks.described_jobs import load_job, load_job_or_suite, load_suite, load_training
from tests.helpers import jobs, trainings
from tests.helpers.finished_runs import finish
from tests.helpers.hub import Hub, run_with
from tests.helpers.transformers_folders import save, write_short_job


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ViT."""
    folder = tmp_path_factory.mktemp("hub") / "network"
    save(folder, "vit")
    return folder


def _identity(job: Job) -> dict[str, Any]:
    return identity_of(job, (), checkpoint_sha256="0", checkpoint_key=None, limit=None)


def _copy(network: Path, to: Path, **changes: bytes | None) -> Path:
    """The folder with other files; None leaves one out."""
    to.mkdir()
    files: dict[str, bytes | None] = {path.name: path.read_bytes() for path in network.iterdir()}
    for name, data in (files | changes).items():
        if data is not None:
            (to / name).write_bytes(data)
    return to


def _error(folder: Path, checkpoint: object, **changes: Any) -> str:
    with pytest.raises(RequestError) as error:
        load_job(write_short_job(folder, str(checkpoint), **changes))
    assert "\n" not in str(error.value)
    prefix = f"{folder / 'job.yaml'}: "
    assert str(error.value).startswith(prefix)
    return str(error.value).removeprefix(prefix)


def test_the_job_is_the_one_that_is_written_out(network: Path, tmp_path: Path) -> None:
    """Architecture, options, classes, names of classes, size, interpolation, mean and std."""
    job = load_job(write_short_job(tmp_path, str(network)))
    assert job.model.model_dump(exclude_defaults=True) == {
        "architecture": "transformers_vit",
        "options": {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2, "norm_eps": 1e-12, "mlp_width": 48},
        "checkpoint": str(network / "model.safetensors"),
        "classes": 3,
        "class_names": ("cat", "dog", "fish"),
    }
    pixels = {"resize": 16, "squash": True, "crop": 16, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    assert job.preprocess.model_dump(exclude_defaults=True) == pixels
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(job.model_dump(mode="json")))
    assert job_file.load_job(tmp_path / "long.yaml") == job


def test_folder_and_file_are_the_same(network: Path, tmp_path: Path) -> None:
    """The folder stands for its model.safetensors."""
    jobs_ = [load_job(write_short_job(tmp_path, str(name))) for name in (network, network / "model.safetensors")]
    assert jobs_[0] == jobs_[1]


_SCRIPT = """
import sys, smoothcert
print(smoothcert.load_job(sys.argv[1]).model_dump_json())
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""


def test_a_name_of_the_hub_gives_the_job_of_its_folder(network: Path, hub: Hub, tmp_path: Path) -> None:
    """Only the configs are downloaded, without torch; afterwards they are in the cache."""
    for path in network.iterdir():
        if path.suffix == ".json":
            hub.files[f"/me/small/resolve/v1/{path.name}"] = path.read_bytes()
    short = write_short_job(tmp_path, "hf-hub:me/small@v1")
    there = Job.model_validate_json(run_with(hub, tmp_path / "home", _SCRIPT, short))
    assert there.model.checkpoint == "hf-hub:me/small@v1"
    assert _identity(there) == _identity(load_job(write_short_job(tmp_path, str(network))))
    offline = run_with(
        hub, tmp_path / "home", _SCRIPT, write_short_job(tmp_path, there.model.checkpoint), HF_HUB_OFFLINE="1"
    )
    assert Job.model_validate_json(offline) == there


_REFUSED = """
import sys, smoothcert
try:
    smoothcert.load_job(sys.argv[1])
except smoothcert.RequestError as error:
    print(error, end="")
"""


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hf-hub:me/gated", "hf-hub:me/gated is gated: accept its conditions"),
        ("hf-hub:me/none", "the hub has no hf-hub:me/none that you may read"),
        ("hf-hub:me/bare", "model.architecture: missing; add it"),
        (
            "timm:small",
            "config.json: is of a network of timm; write model.architecture: resnet10t and",
        ),
    ],
)
def test_error_says_what_the_hub_lacks(name: str, says: str, hub: Hub, tmp_path: Path) -> None:
    """In a line of its own."""
    hub.gated.add("me/gated")
    hub.files["/me/bare/resolve/main/model.safetensors"] = b""
    hub.files["/timm/small/resolve/main/config.json"] = b'{"architecture": "resnet10t", "num_classes": 5}'
    assert says in run_with(hub, tmp_path / "home", _REFUSED, write_short_job(tmp_path, name)).splitlines()[0]


def test_a_run_has_the_sha256_of_the_weights(network: Path, tmp_path: Path) -> None:
    """As with any checkpoint; `plan` says how its tensors are named."""
    jobs.write_shards(tmp_path, shards=1, images=2)
    plan = make_plan(load_job(write_short_job(tmp_path, str(network))))
    assert plan.checkpoint_sha256 == hashlib.sha256((network / "model.safetensors").read_bytes()).hexdigest()
    assert plan.checkpoint_layout == "safetensors, names of transformers"


def test_a_run_is_verified_and_reported_with_names(network: Path, tmp_path: Path) -> None:
    """The checker knows the keys that follow from a checkpoint, and votes again."""
    run = finish(tmp_path, model={"checkpoint": str(network)}, preprocess={})
    found = verify(str(run), replay=4, seed=0)
    assert found.problems == ()
    result = CliRunner().invoke(app, ["report", str(run), "--output", str(tmp_path / "report")])
    assert result.exit_code == 0, result.output
    assert "fish" in (tmp_path / "report" / "report.md").read_text()


def test_what_the_job_says_of_the_pixels_wins(network: Path, tmp_path: Path) -> None:
    """Other keys still follow from the checkpoint; squash belongs to the resize."""
    written = {"mean": [0.1, 0.2, 0.3], "resize": 20, "interpolation": "bicubic"}
    job = load_job(write_short_job(tmp_path, str(network), preprocess=written, model={"dtype": "bfloat16"}))
    pixels = {"resize": 20, "crop": 16, "interpolation": "bicubic", "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5)}
    assert job.preprocess.model_dump(exclude_defaults=True) == pixels
    assert job.model.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": {"classes": 10}}, "model.classes: 10 is not what .*config.json says, 3; leave it out"),
        ({"model": {"options": {"depth": 3}}}, "model.options: they follow from "),
        ({"preprocess": {"crop": 8}}, "preprocess.resize: .*gives one for a crop of 16; write it, too"),
        ({"preprocess": {"upsample": 2}}, "preprocess.resize: .*gives one for a crop of 16; write it, too"),
        ({"preprocess": {"resize": None, "squash": True}}, "preprocess: squash: true resizes to a square, but"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], says: str, network: Path, tmp_path: Path) -> None:
    """What would vote as another network, or on other pixels by mistake."""
    with pytest.raises(RequestError, match=says):
        load_job(write_short_job(tmp_path, str(network), **changes))


def test_what_the_configs_leave_open_must_be_written(network: Path, tmp_path: Path) -> None:
    """Without a processor the job says what the network sees."""
    folder = _copy(network, tmp_path / "bare", **{"preprocessor_config.json": None})
    says = "has no preprocessor_config.json, so write what the network sees: preprocess.interpolation, mean, std"
    assert says in _error(tmp_path, folder, preprocess={"resize": None, "crop": 16})
    pixels = {"resize": None, "crop": 16, "interpolation": "bilinear", "mean": [0, 0, 0], "std": [1, 1, 1]}
    load_job(write_short_job(tmp_path, str(folder), preprocess=pixels))
    nearest = json.dumps({"image_processor_type": "ViTImageProcessor", "resample": 0}).encode()
    folder = _copy(network, tmp_path / "nearest", **{"preprocessor_config.json": nearest})
    assert "preprocess.interpolation: missing, and" in _error(tmp_path, folder)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"config.json": b"{"}, "config.json cannot be read"),
        ({"config.json": b"[]"}, "config.json is no JSON object"),
        ({"model.safetensors": None}, "has no model.safetensors; it holds no file; name one"),
        (
            {"model.safetensors": None, "pytorch_model.bin": b""},
            "has only pickled weights; `smoothcert import",
        ),
        (
            {"model.safetensors": None, "model.safetensors.index.json": b"{}"},
            "its network is in parts; `smoo",
        ),
    ],
)
def test_error_names_the_file_that_is_wrong(
    changes: dict[str, bytes | None], says: str, network: Path, tmp_path: Path
) -> None:
    """Configs that are damaged, weights that are not safetensors or not there."""
    assert says in _error(tmp_path, _copy(network, tmp_path / "damaged", **changes))


def test_a_job_that_names_an_architecture_is_left_alone(network: Path, tmp_path: Path) -> None:
    """Also if a config.json lies beside its checkpoint."""
    path = jobs.write_job(tmp_path)
    before = job_file.load_job(path)
    (tmp_path / "config.json").write_bytes((network / "config.json").read_bytes())
    assert load_job(path) == before


def test_a_training_starts_from_such_a_checkpoint(network: Path, tmp_path: Path) -> None:
    """With its head, or with a new head for other classes."""
    path = trainings.write_training(tmp_path)
    content = yaml.safe_load(path.read_text())
    content.pop("preprocess", None)
    for classes, replaced in ((None, None), (3, None), (7, 3)):
        content["model"] = {"checkpoint": str(network)} | ({} if classes is None else {"classes": classes})
        path.write_text(yaml.safe_dump(content))
        model = load_training(path).model
        assert (model.classes, model.checkpoint_classes) == (classes or 3, replaced)
        assert model.architecture == "transformers_vit"


def test_an_entry_of_a_suite_is_the_job_that_its_checkpoint_describes(network: Path, tmp_path: Path) -> None:
    """Alone or in a suite; what the configs contradict is a mistake of the entry."""
    path = write_short_job(tmp_path, str(network))
    job, content = load_job_or_suite(path), yaml.safe_load(path.read_text())
    assert isinstance(job, Job)
    entries = {"short": {"model": content.pop("model")}, "wide": {"name": "small", "ablation": {"size": 5}}}
    entries["wide"]["model"] = entries["short"]["model"]
    path.write_text(yaml.safe_dump(content | {"entries": entries}, sort_keys=False))
    suite = load_job_or_suite(path, ["entries.wide.ablation.size=6"])
    assert isinstance(suite, Suite)
    assert suite.jobs["short"] == job.model_copy(update={"name": "small: short"})
    assert suite.jobs["wide"] == load_job(write_short_job(tmp_path, str(network)), ["ablation.size=6"])
    path.write_text(yaml.safe_dump(content | {"entries": entries}, sort_keys=False))
    with pytest.raises(
        RequestError, match=r"job\.yaml: entries\.wide: model\.classes: 4 is not what .* says, 3; leave"
    ):
        load_suite(path, ["entries.wide.model.classes=4"])
