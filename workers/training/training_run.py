"""What a training is in storage: where it goes on from, and what it leaves.

    OUTPUT/NAME/training.json                        the training file, and what determines the weights; written first
    OUTPUT/NAME/checkpoints/epoch-0012.pt            all that the next epoch starts from
    OUTPUT/NAME/checkpoints/epoch-0012.png, .jsonl   the curve so far: a picture, and a line an epoch
    OUTPUT/NAME/curve.png, curve.jsonl               the whole curve
    OUTPUT/NAME/weights.safetensors                  for `model.checkpoint` of a job; written last

Each file is published once, whole. A checkpoint is removed when the next one is there. Nothing random is in it:
generators are seeded anew in each step (augmentation.py, loop.py).
"""

import io
import json
import re
from collections.abc import Sequence
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.training import Training, differences
from smoothcert.workers.storage.store import Store
from smoothcert.workers.training.curves import Figures, picture_of

_CHECKPOINT = re.compile(r"epoch-(\d+)\.\w+")


class TrainingRun:
    """The folder of one training.

    Args:
        training: the training file.
        store: that holds the folder.
    """

    def __init__(self, training: Training, store: Store) -> None:
        self._training, self._store = training, store
        self.url = training.url

    def begin(self, identity: dict[str, Any], counts: Sequence[int] | None) -> None:
        """Publish training.json, or go on where it is there already.

        Args:
            identity: what determines the weights.
            counts: images of each tar, where they were counted.
        Raises:
            RequestError: the folder holds another training.
        """
        record = {"training": self._training.model_dump(mode="json"), "identity": identity, "images": counts}
        if not self._store.publish(self.url, "training.json", json.dumps(record, indent=1).encode()):
            self.refuse_others(identity)

    def refuse_others(self, identity: dict[str, Any]) -> None:
        """Raise a RequestError where the folder holds another training."""
        record = self.record()
        if record and (changed := differences(record["identity"], identity)):
            raise RequestError(
                f"{self.url} was begun with other {', '.join(changed)}; put the old values back, or use another name"
            )

    def record(self) -> dict[str, Any]:
        """What training.json says; empty where there is none."""
        url = f"{self.url}/training.json"
        return json.loads(self._store.read(url)) if self._store.find(url) else {}

    def is_complete(self) -> bool:
        return self._store.find(self.weights_url) is not None

    @property
    def weights_url(self) -> str:
        return f"{self.url}/weights.safetensors"

    def epochs_done(self) -> int:
        """Of the newest checkpoint; 0 for none."""
        names = (entry.url.rpartition("/")[2] for entry in self._store.files(f"{self.url}/checkpoints"))
        return max((_epochs_in(name) for name in names if name.endswith(".pt")), default=0)

    def load(self, epochs: int) -> dict[str, Any]:
        """The state of a checkpoint.

        Raises:
            RequestError: it is not seen from here.
        """
        url = f"{self.url}/checkpoints/{_name(epochs)}.pt"
        if self._store.find(url) is None:
            raise RequestError(f"output: {url} is not seen by this machine; use a folder that all machines share")
        # To the CPU: the network and the optimizer take what they need to where they need it.
        return torch.load(io.BytesIO(self._store.read(url)), map_location="cpu", weights_only=True)

    def publish_checkpoint(self, state: dict[str, Any], curve: Sequence[Figures]) -> None:
        """Publish what the next epoch starts from, then remove older checkpoints."""
        epochs = curve[-1].epoch
        data = io.BytesIO()
        torch.save(state, data)
        self._publish_curve(f"checkpoints/{_name(epochs)}", curve)
        self._store.publish(self.url, f"checkpoints/{_name(epochs)}.pt", data.getvalue())
        for entry in self._store.files(f"{self.url}/checkpoints"):
            if _epochs_in(entry.url.rpartition("/")[2]) < epochs:
                self._store.remove(entry.url)

    def finish(self, weights: dict[str, Tensor], curve: Sequence[Figures]) -> None:
        """Publish the curve, then the weights."""
        self._publish_curve("curve", curve)
        self._store.publish(self.url, "weights.safetensors", safetensors.torch.save(weights))
        self._store.sweep(self.url)

    def curve(self) -> list[Figures]:
        """Of a training that is complete."""
        lines = self._store.read(f"{self.url}/curve.jsonl").decode().splitlines()
        return [Figures(**json.loads(line)) for line in lines]

    def _publish_curve(self, name: str, curve: Sequence[Figures]) -> None:
        lines = "".join(json.dumps(figures.as_json()) + "\n" for figures in curve)
        self._store.publish(self.url, f"{name}.jsonl", lines.encode())
        if picture := picture_of(curve, self._training.name):
            self._store.publish(self.url, f"{name}.png", picture)


def _name(epochs: int) -> str:
    return f"epoch-{epochs:04d}"


def _epochs_in(name: str) -> int:
    match = _CHECKPOINT.fullmatch(name)
    return int(match[1]) if match else 0
