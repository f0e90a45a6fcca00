"""How the weights of `smoothcert finetune` were trained, as their safetensors file says in its metadata.

The note travels with the file, so `smoothcert init` can write a job for weights that somebody else trained.
Not covered: what else a training records (workers/training/training_run.py).
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from smoothcert.manifests.job import CODE_PREFIX, Preprocess
from smoothcert.manifests.training import TrainedAblation, Training

_KEY = "smoothcert.training"


class TrainedWith(BaseModel):
    """What a job for such weights repeats.

    Attributes:
        architecture, options, masked_tokens, classes: of the network.
        preprocess: what the network saw.
        ablation: what was drawn, with weights; None: whole images.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    architecture: str
    options: dict[str, Any]
    masked_tokens: Literal["drop", "keep"]
    classes: int
    preprocess: Preprocess
    ablation: Annotated[tuple[TrainedAblation, ...], Field(min_length=1)] | None


def metadata_of(training: Training) -> dict[str, str]:
    """The metadata for the weights of a training; the same text for the same training."""
    note = TrainedWith(
        **training.model.model_dump(include={"architecture", "options", "masked_tokens", "classes"}),
        preprocess=training.preprocess,
        ablation=training.ablation,
    )
    return {_KEY: note.model_dump_json()}


def trained_with(checkpoint: Path) -> TrainedWith | None:
    """How the weights of a local file were trained; None if the file does not say it."""
    try:
        with safe_open(checkpoint, "numpy") as file:
            note = TrainedWith.model_validate_json((file.metadata() or {})[_KEY])
    except (SafetensorError, KeyError, ValidationError):  # other weights, or those of a later version
        return None
    return None if note.architecture.startswith(CODE_PREFIX) else note
