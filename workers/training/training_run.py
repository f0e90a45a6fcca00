"""A training in storage: its files, from which it continues after an interruption.

    OUTPUT/NAME/training.json                        the training file, and what determines the weights; written first
    OUTPUT/NAME/checkpoints/epoch-0012.pt            all that the next epoch starts from
    OUTPUT/NAME/checkpoints/epoch-0012.png, .jsonl   the curve so far: a picture, and one line per epoch
    OUTPUT/NAME/curve.png, curve.jsonl               the whole curve
    OUTPUT/NAME/weights.safetensors                  for a job; also says how it was trained; written last

Each file is published once, whole. A checkpoint is removed after the next one is published. It holds no random state:
generators are seeded again in each step (augmentation.py, loop.py).

Not covered: what training.json holds (workers/runs/records.py); the figures of the curve (curves.py).
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
from smoothcert.manifests.identity import differences
from smoothcert.manifests.training import Training
from smoothcert.workers.networks.trained_with import metadata_of
from smoothcert.workers.runs.json_file import parse
from smoothcert.workers.runs.records import TrainingRecord
from smoothcert.workers.storage.store import Store
from smoothcert.workers.training.curves import Figures, picture_of

_TRAINING_JSON, _CHECKPOINTS, _CURVE, _WEIGHTS = "training.json", "checkpoints", "curve", "weights.safetensors"
_CHECKPOINT = re.compile(r"epoch-(\d+)\.\w+")


class TrainingRun:
    """The folder of one training.

    Args:
        training: the training file.
        store: the store that holds the folder.
    """

    def __init__(self, training: Training, store: Store) -> None:
        self._training, self._store = training, store
        self.url = training.url

    def begin(self, identity: dict[str, Any], counts: Sequence[int] | None) -> None:
        """Publish training.json, or continue the training if it is there already.

        Args:
            identity: what determines the weights.
            counts: number of images of each tar, if they were counted.
        Raises:
            RequestError: the folder holds another training, or training.json is damaged.
        """
        record = TrainingRecord(
            training=self._training.model_dump(mode="json"),
            identity=identity,
            images=None if counts is None else tuple(counts),
        )
        if not self._store.publish(self.url, _TRAINING_JSON, record.encode()):
            self.refuse_others(identity)

    def refuse_others(self, identity: dict[str, Any]) -> None:
        """Raise a RequestError if the folder holds another training."""
        record = self._record()
        if record is not None and (changed := differences(record.identity, identity)):
            raise RequestError(
                f"{self.url} was begun with other {', '.join(changed)}; put the old values back, or use another name"
            )

    def image_counts(self) -> list[int] | None:
        """The number of images of each tar, as training.json has it; None if they are not counted yet."""
        record = self._record()
        return None if record is None or record.images is None else list(record.images)

    def is_complete(self) -> bool:
        return self._store.find(self.weights_url) is not None

    @property
    def weights_url(self) -> str:
        return f"{self.url}/{_WEIGHTS}"

    def epochs_done(self) -> int:
        """The epochs of the newest checkpoint; 0 if there is none."""
        names = (entry.url.rpartition("/")[2] for entry in self._store.files(f"{self.url}/{_CHECKPOINTS}"))
        return max((_epochs_in(name) for name in names if name.endswith(".pt")), default=0)

    def load(self, epochs: int) -> dict[str, Any]:
        """The state of a checkpoint.

        Raises:
            RequestError: this machine does not see the file.
        """
        url = f"{self.url}/{_CHECKPOINTS}/{_name(epochs)}.pt"
        if self._store.find(url) is None:
            raise RequestError(f"output: {url} is not seen by this machine; use a folder that all machines share")
        # To the CPU: the network and the optimizer copy what they need to their own device.
        return torch.load(io.BytesIO(self._store.read(url)), map_location="cpu", weights_only=True)

    def publish_checkpoint(self, state: dict[str, Any], curve: Sequence[Figures]) -> None:
        """Publish what the next epoch starts from, then remove older checkpoints."""
        epochs = curve[-1].epoch
        data = io.BytesIO()
        torch.save(state, data)
        self._publish_curve(f"{_CHECKPOINTS}/{_name(epochs)}", curve)
        self._store.publish(self.url, f"{_CHECKPOINTS}/{_name(epochs)}.pt", data.getvalue())
        for entry in self._store.files(f"{self.url}/{_CHECKPOINTS}"):
            if _epochs_in(entry.url.rpartition("/")[2]) < epochs:
                self._store.remove(entry.url)

    def finish(self, weights: dict[str, Tensor], curve: Sequence[Figures]) -> None:
        """Publish the curve, then the weights."""
        self._publish_curve(_CURVE, curve)
        self._store.publish(self.url, _WEIGHTS, safetensors.torch.save(weights, metadata_of(self._training)))
        self._store.sweep(self.url)

    def curve(self) -> list[Figures]:
        """The whole curve of a complete training."""
        lines = self._store.read(f"{self.url}/{_CURVE}.jsonl").decode().splitlines()
        return [Figures(**json.loads(line)) for line in lines]

    def _record(self) -> TrainingRecord | None:
        """The content of training.json, or None if there is none."""
        url = f"{self.url}/{_TRAINING_JSON}"
        if self._store.find(url) is None:
            return None
        return parse(TrainingRecord, self._store.read(url), url)

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
