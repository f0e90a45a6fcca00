"""The two sides that benchmarks/peers.py compares: one process each, the same images, weights and threads.

    ours  SmoothedViT.votes, then certificates.certify
    art   PyTorchDeRandomizedSmoothing.eval_and_certify of adversarial-robustness-toolbox, tokens dropped

ART's predict adds up logits instead of votes, so its eval_and_certify is timed. That returns accuracies only, so the
votes that it counted are taken when it passes them to its ablator's certify.

A side loads once and says "ready"; then each line on stdin is one timed pass over all images, answered by one
JSON line. At the end of stdin it writes its answers and ends. Both environments run this file, so packages that
only one of them has are imported where they are used.

Not covered: environments, rounds, comparing (peers.py).
"""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

_OFFSETS_TO_COMPARE_BATCHES = 8
_REPEATS = 3


@dataclass(frozen=True)
class Settings:
    """The settings of both sides.

    Attributes:
        folder: holds images.npy, [images, crop, crop, 3] uint8, and weights.safetensors.
        architecture: of timm, known to ART.
        classes: K.
        crop: side of the images in pixels.
        kind: column, row or block.
        size: of the ablation in pixels; its stride is 1.
        patch: side of the square to certify against, in pixels.
        threads: of torch.
        device: cpu or cuda.
        peer_batch: images that ART takes at once; None for the fastest.
    """

    folder: str
    architecture: str
    classes: int
    crop: int
    kind: str
    size: int
    patch: int
    threads: int
    device: str
    peer_batch: int | None

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, file: Path) -> "Settings":
        return cls(**json.loads(file.read_text()))


class Side(Protocol):
    """Loaded and warm: `versions` says what it runs, `batch` how many images it takes at once."""

    versions: dict[str, str]
    batch: int

    def certify_all(self) -> None:
        """Images to votes and certificates: what is timed."""

    def answers(self) -> dict[str, NDArray[Any]]:
        """The answers of the latest pass."""


class Ours:
    def __init__(self, settings: Settings, images: NDArray[np.uint8]) -> None:
        import timm

        from smoothcert.manifests.ablation import ablation_of
        from smoothcert.manifests.job import Model, Preprocess
        from smoothcert.workers.ablations.kinds import ablations_of
        from smoothcert.workers.certificates.majority import certify
        from smoothcert.workers.networks.classifiers import load_classifier
        from smoothcert.workers.votes.format import Format
        from smoothcert.workers.votes.smoothed_vit import SmoothedViT

        model = Model(architecture=settings.architecture, checkpoint="none", classes=settings.classes)
        preprocess = Preprocess(crop=settings.crop, mean=(0, 0, 0), std=(1, 1, 1))
        ablation = ablation_of({"kind": settings.kind, "size": settings.size})
        network = load_classifier(model, preprocess, Path(settings.folder, "weights.safetensors"), None)
        self.versions = {"timm": timm.__version__, "torch": torch.__version__}
        self.batch = len(images)
        self._images = torch.from_numpy(images)
        ablations = ablations_of(ablation, settings.crop, settings.crop)
        self._engine = SmoothedViT(
            network, ablations, preprocess=preprocess, format=Format.of(model), device=torch.device(settings.device)
        )
        self._certify = partial(certify, ablations=ablations, classes=settings.classes)
        if settings.kind != "block":  # an image's blocks take too long to warm up
            self._certify(self._engine.votes(self._images[:1]).classes.cpu().numpy())

    def certify_all(self) -> None:
        self._votes = self._engine.votes(self._images)
        self._certificates = self._certify(self._votes.classes.cpu().numpy())

    def answers(self) -> dict[str, NDArray[Any]]:
        return {
            "votes": self._votes.classes.cpu().numpy(),
            "margins": self._votes.margins.cpu().numpy(),
            "exact": self._certificates.max_certified_patch,
            "margin": self._certificates.max_margin_certified_patch,
        }


class Art:
    def __init__(self, settings: Settings, images: NDArray[np.uint8]) -> None:
        import art  # type: ignore[import-not-found]
        import timm
        from art.estimators.certification.derandomized_smoothing import (  # type: ignore[import-not-found]
            PyTorchDeRandomizedSmoothing,
        )

        if settings.architecture not in PyTorchDeRandomizedSmoothing.get_models():
            raise SystemExit(f"ART knows no {settings.architecture}; name one such as vit_small_patch16_224")
        self.versions = {"art": art.__version__, "timm": timm.__version__, "torch": torch.__version__}
        self._settings = settings
        self._images = images.transpose(0, 3, 1, 2).astype(np.float32) / 255
        self._labels = np.zeros(len(images), int)
        self._smoothed = PyTorchDeRandomizedSmoothing(
            model=settings.architecture,
            loss=torch.nn.CrossEntropyLoss(),
            input_shape=(3, settings.crop, settings.crop),
            nb_classes=settings.classes,
            ablation_size=settings.size,
            ablation_type=settings.kind,
            replace_last_layer=True,
            drop_tokens=True,
            load_pretrained=False,
            clip_values=(0, 1),
            device_type="cpu" if settings.device == "cpu" else "gpu",
            verbose=False,
        )
        self._smoothed.model.load_state_dict(safetensors.torch.load_file(Path(settings.folder, "weights.safetensors")))
        self._certify = self._smoothed.ablator.certify
        self._smoothed.ablator.certify = self._keep_counts
        self._counts: list[NDArray[np.float64]] = []
        self.batch = settings.peer_batch or self._fastest_batch()

    def certify_all(self) -> None:
        self._counts = []
        self._smoothed.eval_and_certify(
            self._images, self._labels, size_to_certify=self._settings.patch, batch_size=self.batch, verbose=False
        )

    def answers(self) -> dict[str, NDArray[Any]]:
        """The votes counted, and which of 1 x 1, 2 x 2, ... its rule certifies: [images, sides]."""
        counts = np.concatenate(self._counts)
        certified = [
            self._certify(counts, side, self._labels)[0].cpu().numpy() for side in range(1, self._settings.crop + 1)
        ]
        return {"counts": counts.astype(int), "certified": np.stack(certified, axis=1)}

    def _keep_counts(self, pred_counts: NDArray[np.float64], size_to_certify: int, label: Any) -> Any:
        self._counts.append(pred_counts)
        return self._certify(pred_counts, size_to_certify, label)

    def _fastest_batch(self) -> int:
        """The batch of 1, 2, 4, ... or all images that gives the most images a second over some offsets."""
        batches = sorted({len(self._images), *(2**power for power in range(len(self._images).bit_length()))})
        per_image = {batch: min(self._seconds(batch) for _ in range(_REPEATS)) / batch for batch in batches}
        return min(batches, key=per_image.__getitem__)

    @torch.no_grad()
    def _seconds(self, batch: int) -> float:
        """What eval_and_certify does for one batch at some offsets."""
        model, ablator = self._smoothed.model.eval(), self._smoothed.ablator
        row = {"row_pos": 0} if self._settings.kind == "block" else {}
        start = time.perf_counter()
        for offset in np.linspace(0, self._settings.crop, _OFFSETS_TO_COMPARE_BATCHES, endpoint=False, dtype=int):
            model(ablator.forward(self._images[:batch], column_pos=int(offset), **row)).argmax(dim=-1).cpu()
        return time.perf_counter() - start


def main(name: str, file: Path) -> None:
    answer = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not mix with answers
    settings = Settings.read(file)
    torch.set_num_threads(settings.threads)
    torch.backends.cudnn.allow_tf32 = False  # ART embeds with a convolution
    images = np.load(Path(settings.folder, "images.npy"))
    side: Side = Ours(settings, images) if name == "ours" else Art(settings, images)
    print(json.dumps({"ready": True, "versions": side.versions, "batch": side.batch}), file=answer)
    for _ in sys.stdin:
        start = time.perf_counter()
        side.certify_all()
        print(json.dumps({"seconds": time.perf_counter() - start}), file=answer)
    arrays: dict[str, Any] = side.answers()
    np.savez(Path(settings.folder, f"{name}.npz"), **arrays)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
