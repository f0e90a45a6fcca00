"""`smoothcert plan`: its estimates, and what it says about the model."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import timm
import torch
from rich.table import Table
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Model, NumberFormat, load_job
from smoothcert.pipeline.certify import costs
from smoothcert.pipeline.cli import app
from smoothcert.workers.networks.classifiers import build_classifier
from smoothcert.workers.votes import smoothed_vit
from tests.helpers import jobs, reference
from tests.helpers.tars import tar_of, write_tar

_RESNET: dict[str, Any] = {
    "architecture": "resnet18",
    "options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
    "checkpoint": "resnet.pt",
    "classes": jobs.CLASSES,
    "masked_tokens": "keep",
}


@pytest.mark.parametrize(
    ("architecture", "options"),
    [("vit_tiny_patch16_224", {}), ("deit_small_distilled_patch16_224", {}), ("vit_tiny_patch16_224", {"depth": 3})],
)
def test_the_formula_agrees_with_the_counter_of_torch(architecture: str, options: dict[str, Any]) -> None:
    """torch's counter and the formula give the same operations for a VisionTransformer that drops nothing."""
    model = Model(architecture=architecture, options=options, checkpoint="none", classes=1000)
    with torch.device("meta"):
        network = build_classifier(model, 224)
    counted = costs.dense_flop_of(network, 224)
    assert counted == pytest.approx(costs.flop_of(network, 196), rel=1e-3)  # the formula has one head


def test_a_resnet_is_counted_as_a_table_says() -> None:
    """ResNet-50 takes 4.1 billion multiplications at 224 x 224, as is widely published."""
    with torch.device("meta"):
        network = timm.create_model("resnet50")
    assert costs.dense_flop_of(network, 224) == pytest.approx(2 * 4.1e9, rel=0.02)


def _rows(folder: Path, **changes: object) -> dict[str, str]:
    jobs.write_shards(folder, shards=2, images=3)
    table = costs.costs_of(load_job(jobs.write_job(folder, **changes)), 1.0).table
    return _cells(table)


def _cells(table: Table) -> dict[str, str]:
    names, values = ([str(cell) for cell in column.cells] for column in table.columns)
    return dict(zip(names, values, strict=True))


def test_upsampled_images_cost_the_tokens_of_large_ones(tmp_path: Path) -> None:
    """An image of half the side, upsampled twice, takes the tokens of the larger image with ablations as wide."""
    (tmp_path / "small").mkdir()
    (tmp_path / "large").mkdir()
    small = _rows(
        tmp_path / "small",
        preprocess={"resize": 8, "crop": 8, "upsample": 2},
        ablation={"kind": "column", "size": 3},
    )
    large = _rows(tmp_path / "large", ablation={"kind": "column", "size": 6, "stride": 2})
    for name in ("ablations an image", "tokens an image", "operations an image"):
        assert small[name] == large[name]


@pytest.mark.parametrize(("early_exit", "at_most"), [(False, ""), (True, "at most ")])
def test_masks_take_a_forward_pass_for_each_vote(tmp_path: Path, *, early_exit: bool, at_most: str) -> None:
    """Each mask, each pair, and the whole image; with early exit they are an upper bound."""
    masks = {"kind": "mask", "threat": 4, "per_axis": 3, "early_exit": early_exit}
    rows = _rows(tmp_path, ablation=masks)
    images = int(rows["images"])
    assert rows["ablations an image"] == "45"
    assert rows["forward passes"] == f"{at_most}{images * 46:,}"


def test_a_network_without_tokens_has_operations_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its operations are counted, its tokens are not; where nothing can be counted the plan says so."""
    network = timm.create_model("resnet18", num_classes=jobs.CLASSES, **_RESNET["options"])
    torch.save(network.state_dict(), tmp_path / "resnet.pt")
    rows = _rows(tmp_path, model=_RESNET)
    assert "tokens an image" not in rows
    flop = costs.dense_flop_of(network.to("meta"), jobs.CROP)
    assert flop is not None
    assert rows["operations an image"] == f"{17 * flop / 1e6:.3g} MFLOP"  # 16 ablations, and the whole
    monkeypatch.setattr(costs, "dense_flop_of", lambda *_: None)
    rows = _rows(tmp_path, model=_RESNET)
    assert rows["operations an image"] == "unknown"
    assert "operations" not in rows


def test_tokens_that_are_not_there_cannot_be_dropped(tmp_path: Path) -> None:
    """The plan says so in a line."""
    network = timm.create_model("resnet18", num_classes=jobs.CLASSES, **_RESNET["options"])
    torch.save(network.state_dict(), tmp_path / "resnet.pt")
    with pytest.raises(RequestError, match=r"no tokens to drop; set model\.masked_tokens: keep$"):
        _rows(tmp_path, model=_RESNET | {"masked_tokens": "drop"})


def test_the_plan_names_the_layout_of_the_checkpoint(tmp_path: Path) -> None:
    """In words; and what an actor would refuse is refused: here a normaliser that is not the job's."""
    with torch.random.fork_rng():
        network = timm.create_model("vit_tiny_patch16_224", img_size=16, num_classes=jobs.CLASSES, **jobs.OPTIONS)
    torch.save({"model": reference.state_dict(network)}, tmp_path / "weights.pt")
    rows = _rows(tmp_path, preprocess={"resize": None, "crop": 16, "mean": reference.MEAN, "std": reference.STD})
    assert rows["checkpoint"] == "reference layout, state dict 'model', prefix 'module.model.model.'"
    with pytest.raises(RequestError, match=r"preprocess\.mean: .* is not what .*weights\.pt was trained with"):
        _rows(tmp_path)


def test_every_shard_that_would_fail_is_named(tmp_path: Path) -> None:
    """The plan names each of them with its reason and ends with 1; the number of images is then not known."""
    jobs.write_shards(tmp_path, shards=1)
    write_tar(tmp_path / "tars", b"", "01.tar")
    write_tar(tmp_path / "tars", tar_of([("a.txt", b"x")]), "02.tar")
    result = CliRunner().invoke(app, ["plan", str(jobs.write_job(tmp_path))])
    failed = [line for line in result.output.splitlines() if line.startswith("failed: ")]
    assert [line.split(": ")[1] for line in failed] == ["shard 01.tar", "shard 02.tar"]
    assert ("is empty" in failed[0], "holds no image" in failed[1]) == (True, True)
    assert "unknown" in result.output
    assert result.exit_code == 1
    result = CliRunner().invoke(app, ["plan", str(jobs.write_job(tmp_path, images={"shards": "tars/00.tar"}))])
    assert (result.exit_code, "failed" in result.output) == (0, False)


def test_json_holds_the_figures_of_the_table(tmp_path: Path) -> None:
    """As numbers; notices and failures are in it and on stderr, and the exit code stays."""
    jobs.write_shards(tmp_path, shards=2, images=3)
    job = jobs.write_job(tmp_path)
    printed = CliRunner().invoke(app, ["plan", str(job), "--json", "--tflops", "2"])
    found, rows = json.loads(printed.stdout), _cells(costs.costs_of(load_job(job), 2.0).table)
    assert (printed.exit_code, printed.stderr) == (0, "".join(f"notice: {line}\n" for line in found["notices"]))
    assert (found["run_id"], found["complete"], found["shards"], found["published"]) == (rows["run id"], False, 2, 0)
    for name, key in (("images", "images"), ("ablations an image", "ablations_per_image")):
        assert rows[name] == f"{found[key]:,}"
    assert rows["tokens an image"] == f"{found['tokens_per_image']:,}"
    assert rows["bytes out, about"] == f"{found['bytes_out']:,}"
    assert found["operations"] == 6 * found["operations_per_image"]
    assert found["forward_passes_per_image"] == found["ablations_per_image"] + 1
    assert found["forward_passes"] == 6 * found["forward_passes_per_image"]
    assert found["seconds_left"] == pytest.approx(found["operations"] / 2e12)
    assert found["format_speeds"].keys() | {"int8"} == set(get_args(NumberFormat))
    assert found["format_speeds"]["float32"] == 1  # the job's
    write_tar(tmp_path / "tars", b"", "02.tar")
    printed = CliRunner().invoke(app, ["plan", str(job), "--json"])
    found = json.loads(printed.stdout)
    assert (printed.exit_code, found["images"], found["operations"], found["bytes_out"]) == (1, None, None, None)
    (failure,) = found["failures"]
    assert failure["shard"] == "02.tar"
    assert f"failed: {failure['reason']}" in printed.stderr


def test_a_format_that_this_machine_cannot_compute_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job may be for other machines, so it is no error."""
    monkeypatch.setattr(costs, "block_seconds", lambda *_: {"float32": 2.0, "bfloat16": 1.0})
    jobs.write_shards(tmp_path, shards=1, images=1)
    found = costs.costs_of(load_job(jobs.write_job(tmp_path), ["model.dtype=int8"]), 1.0)
    assert found.format_speeds is None
    assert "fastest format here" not in _cells(found.table)
    assert "model.dtype: this machine cannot compute int8; the machines that vote must" in found.notices


def test_the_fastest_format_is_named_where_it_is_worth_it() -> None:
    """With how much faster it is; the job decides."""
    words = costs._fastest_in_words({"float32": 1, "bfloat16": 3.42, "float16": 0.1}, "float32")
    assert words == "bfloat16, 3.4 times as fast as the job's float32; its votes are another run"
    assert costs._fastest_in_words({"float32": 1.05, "bfloat16": 1}, "bfloat16") == "bfloat16, the job's"


def test_the_plan_counts_what_the_tars_hold_besides_images(tmp_path: Path) -> None:
    """In the words of `certify`, once for all tars."""
    jobs.write_shards(tmp_path, shards=1)
    besides = [("x.bmp", b"x"), ("x.cls", b"1"), ("y.TIFF", b"x"), ("._a.png", b"x"), ("readme.txt", b"x")]
    for number in (1, 2):
        write_tar(tmp_path / "tars", tar_of([*jobs.samples(10 * number, 2), *besides]), f"0{number}.tar")
    costs_of_job = costs.costs_of(load_job(jobs.write_job(tmp_path)), 1.0)
    assert _cells(costs_of_job.table)["images"] == "9"
    assert costs_of_job.notices[:2] == [
        "2 files that operating systems add to folders, such as ._NAME or .DS_Store, were skipped in the tars",
        "4 samples in the tars have no member that images.image names (suffixes: bmp, cls, tiff) and are not in the "
        "run; add the suffixes that are images to images.image",
    ]


def test_a_network_that_would_vote_otherwise_is_refused(tmp_path: Path) -> None:
    """An engine that does not compute what timm computes shows in the plan, before a machine is asked for."""
    jobs.write_shards(tmp_path, shards=1)
    plain = smoothed_vit.SmoothedViT._classify
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smoothed_vit.SmoothedViT, "_classify", lambda self, tokens: plain(self, tokens) * 1.1)
        result = CliRunner().invoke(app, ["plan", str(jobs.write_job(tmp_path))])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: model: votes would not be those of vit_tiny_patch16_224 ")
