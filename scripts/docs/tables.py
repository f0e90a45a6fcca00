"""Which tables of the documentation come from runs: their columns, and for each row its run and how to make that run.

A table stands in its page between the marks `<!-- table: NAME -->` and `<!-- end -->`. To add a row, add it here.
Run ids follow from job, weights and tars, so weights that another machine trains need their own ids here.

Not covered: the figures of a run (figures.py), the marks (pages.py).
"""

from collections.abc import Mapping
from typing import NamedTuple

RESULTS, CERTIFICATES = "docs/results.md", "docs/certificates.md"
CARD = "manifests/examples/cifar10_vit_p4_column4.md"
MASKS_CARD = "manifests/examples/cifar10_vit_p4_masks.md"
SHIPPED_RUN = "c81ef12e5dda6580"

_CERTIFY = "smoothcert certify manifests/examples/cifar10-test.yaml"
_FINETUNE = "smoothcert finetune manifests/examples/cifar10-train.yaml"
_SHORT = "--set epochs=2 --set schedule.warmup_epochs=0.5 --set batch_size=128 --set ema=null"
_MASKS = "manifests/examples/cifar10_vit_p4_masks.safetensors"
_FROM_SHIPPED = "--set model.checkpoint=manifests/examples/cifar10_vit_p4_column4.safetensors --set optimizer.lr=0.002"
_WIDTHS = ", ".join(f"{{kind: column, size: {width}}}" for width in (2, 4, 6, 8))
_RESNET = (
    "--set model.architecture=resnet18 --set model.masked_tokens=keep --set preprocess.upsample=2 "
    "--set 'model.options={channels: [32, 64, 128, 256]}'"
)


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        labels: cells that no run gives, by column; a table shows those of its columns.
        run: id of the run.
        certify: what follows the job file in the command that makes the run.
        train: command that trains the checkpoint; None for a shipped one.
        stride: of the votes that count, in pixels.
    """

    labels: Mapping[str, str]
    run: str
    certify: str = ""
    train: str | None = None
    stride: int = 1

    @property
    def command(self) -> str:
        """What makes the run, from the root of the repository."""
        first = f"{self.train}; then: " if self.train else ""
        return f"{first}{_CERTIFY} {self.certify}".rstrip()


class Table(NamedTuple):
    """A table of one page.

    Attributes:
        columns: labels, and figures by the names of figures.py; run and checkpoint are added to them.
        sides: patches in pixels, a column each.
        both_rules: show exact and margin rule in each cell, not the exact rule alone.
    """

    name: str
    page: str
    columns: tuple[str, ...]
    sides: tuple[int, ...]
    rows: tuple[Row, ...]
    decimals: int = 2
    both_rules: bool = False

    @property
    def is_of_one_run(self) -> bool:
        return len({row.run for row in self.rows}) == 1


_ALL_SIDES = (1, 2, 3, 4, 5, 6, 7, 8)
_EVEN_SIDES = (1, 2, 4, 6, 8)
_COLUMNS_TRAINED = f"{_FINETUNE} {_SHORT} {_FROM_SHIPPED} --set name=columns --set 'ablation=[{_WIDTHS}]'"
_BLOCKS_TRAINED = (
    f"{_FINETUNE} {_SHORT} {_FROM_SHIPPED} --set name=blocks --set 'ablation={{kind: block, size: 12}}' "
    "--set 'validation.ablation={kind: block, size: 12, stride: 4}'"
)
_DROP_TRAINED = f"{_FINETUNE} {_SHORT} --set name=scratch-drop"
_KEEP_TRAINED = f"{_FINETUNE} {_SHORT} --set name=scratch-keep --set model.masked_tokens=keep"
_RESNET_TRAINED = f"{_FINETUNE} {_SHORT} {_RESNET} --set name=scratch-resnet"


def _width(trained_on: str, width: int, run: str, train: str | None = None) -> Row:
    weights = "" if train is None else " --set model.checkpoint=runs/columns/weights.safetensors"
    labels = {"trained on": trained_on, "b": str(width)}
    return Row(labels, run, f"--set ablation.size={width} --limit 2000{weights}", train)


def _ablation(kind: str, stride: int, votes: int, run: str, certify: str, train: str | None = None) -> Row:
    labels = {"ablation": kind, "stride": str(stride), "votes": str(votes)}
    return Row(labels, run, f"--limit 1000 {certify}", train, stride)


def _tokens(labels: Mapping[str, str], run: str, mode: str, name: str | None = None, train: str | None = None) -> Row:
    weights = "" if name is None else f"--set model.checkpoint=runs/scratch-{name}/weights.safetensors "
    return Row(labels, run, f"--limit 1000 {weights}--set model.masked_tokens={mode}", train)


def _stride(stride: int) -> Row:
    return Row({"stride": str(stride), "votes": str(-(-32 // stride))}, SHIPPED_RUN, stride=stride)


def _format(dtype: str, run: str) -> Row:
    return Row({"format": dtype}, run, f"--limit 500 --set model.dtype={dtype}")


def _smoothing(ablation: str, passes: int, run: str, certify: str = "", stride: int = 1) -> Row:
    labels = {"ablation": ablation, "forward passes": str(passes)}
    return Row(labels, run, f"--limit 500 {certify}".rstrip(), stride=stride)


def _masks(side: int, per_axis: int, run: str, *, mode: str = "drop") -> Row:
    masks = per_axis**2
    early_exit = ", early_exit: true" if per_axis == 6 else ""
    labels = {
        "threat": f"{side} x {side}",
        "k": str(per_axis),
        "tokens": mode,
        "forward passes": str(masks * (masks + 1) // 2 + 1),
    }
    ablation = f"{{kind: mask, threat: {side}, per_axis: {per_axis}, fill: black{early_exit}}}"
    keep = " --set model.masked_tokens=keep" if mode == "keep" else ""
    return Row(labels, run, f"--limit 500 --set model.checkpoint={_MASKS} --set 'ablation={ablation}'{keep}")


_BLOCK_12 = "--set 'ablation={kind: block, size: 12, stride: 2}' --set model.checkpoint=runs/blocks/weights.safetensors"
_DROPPED = _tokens({"network": "ViT, drop"}, "342243782abf78c0", "drop", "drop", _DROP_TRAINED)
_KEPT = _tokens({"network": "ViT, keep"}, "1732ff5fd8a86992", "keep", "keep", _KEEP_TRAINED)

_OF_MASKS = ("double masking", "recovery", "whole image", "detection", "false alarms")
_K3_5 = "9484b30a213eaec3"
_MASK_RUNS = (
    (2, 3, "37af3ffb8fb5bdcd"),
    (2, 4, "6143c979838f458b"),
    (2, 6, "301d3bed5e6e33ae"),
    (4, 3, "6a084ff422fd8e51"),
    (4, 4, "8aae19aa56ae8e25"),
    (4, 6, "38542daf1047fade"),
    (5, 3, _K3_5),
    (5, 4, "2683e4bd6e9cca7c"),
    (5, 6, "032146d9ea46cfee"),
)

TABLES = (
    Table("shipped", RESULTS, ("on ablations", "smoothed"), _ALL_SIDES, (Row({}, SHIPPED_RUN),)),
    Table("shipped", CARD, ("on ablations", "smoothed"), _ALL_SIDES, (Row({}, SHIPPED_RUN),)),
    Table(
        "width",
        RESULTS,
        ("trained on", "b", "on ablations", "smoothed"),
        _ALL_SIDES,
        (
            _width("columns of 4", 2, "957251e9544f3c2a"),
            _width("columns of 4", 4, "00416953c42dc3f5"),
            _width("columns of 4", 6, "9db109a6a9fd1ded"),
            _width("columns of 4", 8, "dc8e51d39707083d"),
            _width("all four", 2, "bd76a0f567b69b67", _COLUMNS_TRAINED),
            _width("all four", 4, "7933bf75e49e28c4", _COLUMNS_TRAINED),
            _width("all four", 6, "b3581631bc314156", _COLUMNS_TRAINED),
            _width("all four", 8, "c9244e1d3eeadc43", _COLUMNS_TRAINED),
        ),
    ),
    Table("stride", RESULTS, ("stride", "votes", "smoothed"), _EVEN_SIDES, tuple(map(_stride, (1, 2, 4, 8)))),
    Table(
        "blocks",
        RESULTS,
        ("ablation", "stride", "votes", "on ablations", "smoothed"),
        _EVEN_SIDES,
        (
            _ablation("column 4", 2, 16, "118dbad7580b77f1", "--set ablation.stride=2"),
            _ablation("column 4", 4, 8, "118dbad7580b77f1", "--set ablation.stride=2"),
            _ablation("block 12", 2, 256, "cb0ecc8abbb580b5", _BLOCK_12, _BLOCKS_TRAINED),
            _ablation("block 12", 4, 64, "cb0ecc8abbb580b5", _BLOCK_12, _BLOCKS_TRAINED),
        ),
        decimals=1,
    ),
    Table(
        "tokens",
        RESULTS,
        ("trained", "votes with", "on ablations", "smoothed"),
        _ALL_SIDES,
        (
            _DROPPED._replace(labels={"trained": "drop, 2 epochs", "votes with": "drop"}),
            _tokens(
                {"trained": "drop, 2 epochs", "votes with": "keep"}, "2c0568888b5c229d", "keep", "drop", _DROP_TRAINED
            ),
            _KEPT._replace(labels={"trained": "keep, 2 epochs", "votes with": "keep"}),
            _tokens(
                {"trained": "keep, 2 epochs", "votes with": "drop"}, "53e5f81c35b69aab", "drop", "keep", _KEEP_TRAINED
            ),
            _tokens({"trained": "drop, shipped", "votes with": "drop"}, "48d1def6b9762ecf", "drop"),
            _tokens({"trained": "drop, shipped", "votes with": "keep"}, "002307beab5169a6", "keep"),
        ),
        decimals=1,
    ),
    Table(
        "networks",
        RESULTS,
        ("network", "on ablations", "smoothed"),
        _ALL_SIDES,
        (
            _DROPPED,
            _KEPT,
            Row(
                {"network": "ResNet"},
                "e44fe5697757b819",
                f"--limit 1000 {_RESNET} --set model.checkpoint=runs/scratch-resnet/weights.safetensors",
                _RESNET_TRAINED,
            ),
        ),
        decimals=1,
    ),
    Table(
        "formats",
        RESULTS,
        ("format", "votes that differ", "on ablations", "smoothed"),
        _ALL_SIDES,
        (
            _format("float32", "8fa40f0451c9a52e"),
            _format("bfloat16", "7a537685eb83a830"),
            _format("float16", "bbf5ad079fe3690b"),
            _format("int8", "e41d1d69b6bb7a76"),
        ),
        decimals=1,
    ),
    Table(
        "smoothing",
        RESULTS,
        ("ablation", "forward passes", "smoothed"),
        (2, 4, 5),
        (
            _smoothing("column 4", 33, "8fa40f0451c9a52e"),
            _smoothing(
                "block 12, stride 3",
                122,
                "56c63005761805de",
                "--set 'ablation={kind: block, size: 12, stride: 3}'",
                stride=3,
            ),
        ),
        decimals=1,
    ),
    Table(
        "masks",
        RESULTS,
        ("threat", "k", "forward passes", *_OF_MASKS, "votes left out"),
        (),
        tuple(_masks(*each) for each in _MASK_RUNS),
        decimals=1,
    ),
    Table(
        "mask tokens",
        RESULTS,
        ("tokens", *_OF_MASKS),
        (),
        (_masks(5, 3, _K3_5), _masks(5, 3, "6198165025b0d1ec", mode="keep")),
        decimals=1,
    ),
    Table(
        "masks", MASKS_CARD, ("threat", "k", *_OF_MASKS), (), tuple(_masks(*each) for each in _MASK_RUNS), decimals=1
    ),
    Table(
        "rules",
        CERTIFICATES,
        ("stride", "smoothed"),
        _ALL_SIDES,
        tuple(map(_stride, (1, 2, 3, 4, 5))),
        both_rules=True,
    ),
)
