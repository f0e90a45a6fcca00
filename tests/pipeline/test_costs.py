"""`smoothcert plan`: what it reckons, and what it says of the model."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from rich.table import Table

from manifests.errors import RequestError
from manifests.job import Model, load_job
from pipeline import costs
from tests.helpers import jobs, reference
from workers.classifiers import build_classifier

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
def test_two_ways_to_count_agree(architecture: str, options: dict[str, Any]) -> None:
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
    table, _, _ = costs.plan_table(load_job(jobs.write_job(folder, **changes)), 1.0)
    return _cells(table)


def _cells(table: Table) -> dict[str, str]:
    names, values = ([str(cell) for cell in column.cells] for column in table.columns)
    return dict(zip(names, values, strict=True))


def test_upsampling_costs_tokens(tmp_path: Path) -> None:
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


def test_a_network_without_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_layout_of_the_checkpoint_is_told(tmp_path: Path) -> None:
    """In words; and what an actor would refuse is refused: here a normaliser that is not the job's."""
    with torch.random.fork_rng():
        network = timm.create_model("vit_tiny_patch16_224", img_size=16, num_classes=jobs.CLASSES, **jobs.OPTIONS)
    torch.save({"model": reference.state_dict(network)}, tmp_path / "weights.pt")
    rows = _rows(tmp_path, preprocess={"resize": None, "crop": 16, "mean": reference.MEAN, "std": reference.STD})
    assert rows["checkpoint"] == "reference layout, state dict 'model', prefix 'module.model.model.'"
    with pytest.raises(RequestError, match=r"preprocess\.mean: .* is not what .*weights\.pt was trained with"):
        _rows(tmp_path)
