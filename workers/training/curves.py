"""The figures of a training, one set per epoch, and their picture."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figures:
    """What is known after an epoch; accuracies are shares from 0 to 1, None if nothing was measured."""

    epoch: int
    """Epochs done."""
    lr: float
    """Learning rate of the last step."""
    train_loss: float
    """Mean loss of the epoch's images as the network saw them."""
    train_accuracy: float | None
    """Share from 0 to 1 of these that is right; null for mixed images."""
    images: int
    """Number of images of the epoch."""
    left_out: int
    """Images that cannot be used."""
    seconds: float
    """Seconds of the epoch, without validation."""
    ablation_accuracy: float | None = None
    """Share from 0 to 1 of the votes on held-out images that is right; null without validation."""
    smoothed_accuracy: float | None = None
    """Share from 0 to 1 of held-out images whose most frequent vote is right; null without validation."""
    certified_accuracy: dict[str, float] = field(default_factory=dict)
    """Share from 0 to 1 of held-out images that stay right under any square patch, by its side in pixels."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def line(self, epochs: int) -> str:
        """The figures on one line, for people."""
        parts = [f"loss {self.train_loss:.3f}"]
        parts += [] if self.train_accuracy is None else [f"train {self.train_accuracy:.1%}"]
        if self.ablation_accuracy is not None and self.smoothed_accuracy is not None:
            parts += [f"ablations {self.ablation_accuracy:.1%}", f"smoothed {self.smoothed_accuracy:.1%}"]
            parts += [f"{side} x {side} {share:.1%}" for side, share in self.certified_accuracy.items()]
        parts += [f"lr {self.lr:.2g}", f"{self.images / max(self.seconds, 1e-9):.0f} images/s"]
        parts += [f"{self.left_out} left out"] if self.left_out else []
        return f"[{self.epoch}/{epochs}] {', '.join(parts)}"


def picture_of(curve: Sequence[Figures], title: str) -> bytes | None:
    """Draw loss and accuracies over the epochs.

    Args:
        curve: the figures, in order.
        title: of the picture.
    Returns:
        A PNG; None if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    picture = Figure(figsize=(12, 4), layout="constrained")
    loss, accuracy = picture.subplots(1, 2)
    picture.suptitle(title)
    loss.plot([figures.epoch for figures in curve], [figures.train_loss for figures in curve])
    loss.set(xlabel="epoch", ylabel="training loss")
    series = _accuracies(curve)
    for name, points in series.items():
        accuracy.plot(*zip(*points, strict=True), marker="." if len(points) < 20 else None, label=name)
    accuracy.set(xlabel="epoch", ylabel="accuracy, %")
    if series:
        picture.legend(loc="outside right center")  # lines may be everywhere inside the axes
    file = io.BytesIO()
    picture.savefig(file, format="png", dpi=120, metadata={"Software": None})
    return file.getvalue()


def _accuracies(curve: Sequence[Figures]) -> dict[str, list[tuple[int, float]]]:
    """Epoch and percentage of each point, by the name of the line."""
    series: dict[str, list[tuple[int, float]]] = {}
    for figures in curve:
        values = {
            "training images, ablated": figures.train_accuracy,
            "held out, ablated": figures.ablation_accuracy,
            "held out, smoothed": figures.smoothed_accuracy,
            **{f"held out, certified {side} x {side}": share for side, share in figures.certified_accuracy.items()},
        }
        for name, value in values.items():
            if value is not None:
                series.setdefault(name, []).append((figures.epoch, 100 * value))
    return series
