"""Figures of a training, an epoch each, and their picture."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figures:
    """What is known after an epoch; accuracies are shares from 0 to 1, None where nothing was measured.

    Attributes:
        epoch: epochs done.
        lr: learning rate of the last step.
        train_loss, train_accuracy: of the epoch's images as they were learned from; no accuracy of mixed images.
        images: learned from in the epoch.
        left_out: could not be learned from.
        seconds: of the epoch, without validation.
        ablation_accuracy: share of the held-out images' votes that are right.
        smoothed_accuracy: share of held-out images whose most frequent vote is right.
        certified_accuracy: share of those that no square patch can change, by the side of the patch.
    """

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float | None
    images: int
    left_out: int
    seconds: float
    ablation_accuracy: float | None = None
    smoothed_accuracy: float | None = None
    certified_accuracy: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def line(self, epochs: int) -> str:
        """For people, on one line."""
        parts = [f"loss {self.train_loss:.3f}"]
        parts += [] if self.train_accuracy is None else [f"train {self.train_accuracy:.1%}"]
        if self.ablation_accuracy is not None and self.smoothed_accuracy is not None:
            parts += [f"ablations {self.ablation_accuracy:.1%}", f"smoothed {self.smoothed_accuracy:.1%}"]
            parts += [f"{side} x {side} {share:.1%}" for side, share in self.certified_accuracy.items()]
        parts += [f"lr {self.lr:.2g}", f"{self.images / max(self.seconds, 1e-9):.0f} images/s"]
        parts += [f"{self.left_out} left out"] if self.left_out else []
        return f"[{self.epoch}/{epochs}] {', '.join(parts)}"


def picture_of(curve: Sequence[Figures], title: str) -> bytes | None:
    """Loss and accuracies over the epochs as PNG; None where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    picture = Figure(figsize=(12, 4), layout="constrained")
    loss, accuracy = picture.subplots(1, 2)
    picture.suptitle(title)
    loss.plot([figures.epoch for figures in curve], [figures.train_loss for figures in curve])
    loss.set(xlabel="epoch", ylabel="training loss")
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
    for name, points in series.items():
        accuracy.plot(*zip(*points, strict=True), marker="." if len(points) < 20 else None, label=name)
    accuracy.set(xlabel="epoch", ylabel="accuracy, %")
    if series:
        picture.legend(loc="outside right center")  # lines are everywhere else
    file = io.BytesIO()
    picture.savefig(file, format="png", dpi=120, metadata={"Software": None})
    return file.getvalue()
