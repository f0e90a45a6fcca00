"""The training file: which network learns from which images, seen through which ablations.

Loaded as strictly as a job. Sections that a job has, too, mean the same: a job with the same `model`,
`preprocess` and `ablation` certifies what comes out.

The defaults are the reference's recipe. Its README trains CIFAR-10 from pretrained weights with SGD, learning rate
0.01, times 0.1 every 10 of 30 epochs, batches of 128, weight decay 5e-4; momentum 0.9 and, for ImageNet, weight
decay 1e-4 are what its framework, github.com/MadryLab/robustness, fills in.
Source: Salman et al. 2021, arXiv:2110.07719, and github.com/MadryLab/smoothed-vit.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, Strict, field_validator, model_validator

from smoothcert.manifests.job import (
    Ablation,
    Auto,
    Count,
    Images,
    Model,
    Network,
    Pixels,
    Preprocess,
    Storage,
    refuse_misfits,
    refuse_other_channels,
)
from smoothcert.manifests.locations import Location, OptionalWeights
from smoothcert.manifests.shards import Shard
from smoothcert.manifests.yaml_file import Part, load_file

_DETERMINES_NOTHING = {"validation", "output", "checkpoint_every_epochs", "execution", "storage"}

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
# A single mapping is a list of one.
_OneOrMore = BeforeValidator(lambda value: [value] if isinstance(value, dict) else value)


class TrainedModel(Network):
    checkpoint: OptionalWeights = None
    """File with the weights to start from; null starts from scratch."""
    checkpoint_classes: Annotated[int, Strict(), Field(ge=0)] | None = None
    """Classes of the checkpoint's head, which a new one replaces; 0: it has no head; null keeps the head."""

    def as_voter(self) -> Model:
        """The model as a job has it, in float32."""
        return Model(
            architecture=self.architecture,
            options=self.options,
            checkpoint=self.checkpoint or "",
            ignore=self.ignore,
            classes=self.classes,
            masked_tokens=self.masked_tokens,
        )


class TrainedAblation(Ablation):
    weight: Positive = 1.0
    """How often it is drawn, beside the others."""


class Augmentation(Part):
    crop: Literal["none", "pad", "resized"] = "none"
    """none: as certified; pad: a place in the image with a black border; resized: a random rectangle of the image."""
    padding: Pixels = 4
    """Width of the border, for `pad`."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Least and largest share of the image's area, for `resized`."""
    flip: Share = 0.5
    """How often left and right are swapped."""
    color_jitter: NotNegative = 0.0
    """Strength of random brightness, contrast and saturation (torchvision's ColorJitter)."""
    random: str | None = None
    """Random augmentation in timm's notation, such as rand-m6-n2-mstd0.5."""

    @field_validator("scale")
    @classmethod
    def _in_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 1:
            raise ValueError("should be two shares, the smaller first, such as [0.08, 1]")
        return value

    @property
    def per_image(self) -> bool:
        """Whether images are augmented one by one, by libraries that take no batches."""
        return self.crop == "resized" or self.color_jitter > 0 or self.random is not None


class Optimizer(Part):
    name: str = "momentum"
    """As timm.optim.create_optimizer_v2 knows it: momentum is plain SGD, sgd Nesterov's, adamw and many others."""
    lr: Positive = 0.01
    """Learning rate, of the first epoch after the warm-up."""
    momentum: Share = 0.9
    """Of the optimizers that have one."""
    weight_decay: NotNegative = 1e-4
    """Not on biases and norms (timm's rule)."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Factor of the learning rate from each block to the one before."""
    clip_grad: Positive | None = None
    """Largest norm of the gradient; a longer one is scaled down."""
    options: dict[str, Any] = Field(default={})
    """Further arguments of the optimizer, such as {betas: [0.9, 0.99]}."""


class Schedule(Part):
    name: Literal["step", "cosine", "constant"] = "step"
    """How the learning rate falls."""
    decay_epochs: Positive = 10
    """Epochs between falls, for `step`."""
    decay_rate: Positive = 0.1
    """Factor of a fall, for `step`."""
    warmup_epochs: NotNegative = 0
    """Epochs in which it rises from `warmup_lr`."""
    warmup_lr: NotNegative = 0.0
    """Learning rate at the start of the warm-up."""
    min_lr: NotNegative = 0.0
    """Learning rate at the end, for `cosine`."""


class Regularisation(Part):
    label_smoothing: Share = 0.0
    """Share of the target that all classes divide."""
    mixup: NotNegative = 0.0
    """Alpha of mixup (timm.data.Mixup); 0 for none. Images of one process are mixed."""
    cutmix: NotNegative = 0.0
    """Alpha of cutmix; with both, one of them is drawn for each batch."""
    drop_path: Share = 0.0
    """Stochastic depth of the last block; those before have less."""


class Validation(Part):
    images: Images
    """Held-out images; as in a job."""
    ablation: Ablation | None = None
    """On which it votes; null takes the first of `ablation`."""
    patches: tuple[Pixels, ...] = ()
    """Sides of the square patches for which certified accuracy is told."""
    every_epochs: Count = 5
    """The last epoch is always validated."""


class TrainExecution(Part):
    workers: Count = 1
    """Processes that share each batch; more than one run under Ray Train."""
    gpus_per_worker: Annotated[NotNegative | None, Auto] = None
    """GPUs of one process; auto takes one where there are enough."""
    cpus_per_worker: Positive = 1
    """CPU cores of one process."""
    loaders: Annotated[int, Strict(), Field(ge=0)] = 0
    """Processes that read and augment for each worker; 0 leaves it to the worker itself."""
    max_failures: Annotated[int, Strict(), Field(ge=0)] = 3
    """How often several processes begin again from the newest checkpoint after one is lost."""
    images_per_forward: Count = 65536
    """Most images in one forward and backward pass; a smaller number takes less memory. The gradient is the same, but
    for networks with batch norm, dropout or drop path."""


class Training(Part):
    name: str
    """Folder in `output` for what is made."""
    images: Images
    """Images with labels, as in a job."""
    validation: Validation | None = None
    """What is reported of held-out images; null: no validation."""
    model: TrainedModel
    """The network."""
    preprocess: Preprocess = Preprocess()
    """As the job that certifies has it."""
    augmentation: Augmentation = Augmentation()
    """What happens to an image before it is hidden."""
    ablation: Annotated[tuple[TrainedAblation, ...], _OneOrMore]
    """One ablation, or several that are drawn by their weights; each image has an offset of its own."""
    whole_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the images of which nothing is hidden."""
    optimizer: Optimizer = Optimizer()
    """Of the weights."""
    schedule: Schedule = Schedule()
    """Of the learning rate."""
    regularisation: Regularisation = Regularisation()
    """Against learning by heart."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of an average of the weights, which is then what is validated and published."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the network's products (autocast); weights stay float32."""
    publish_as: Literal["float32", "float16"] = "float32"
    """Number format of the weights in the end."""
    batch_size: Count = 128
    """Images of a step, those of all processes together."""
    epochs: Count = 30
    """How often each image is seen."""
    seed: Annotated[int, Strict(), Field(ge=0)] = 0
    """Of everything that is drawn."""
    cache: bool = False
    """Keep the decoded pixels in memory, [images, crop, crop, 3] bytes, instead of reading the tars in each epoch."""
    shuffle_images: Count = 1024
    """Without `cache`: images among which the next is drawn; tars are shuffled, too."""
    output: Location
    """Folder or s3:// URL."""
    checkpoint_every_epochs: Count = 1
    """How often the state is published; the same command, run again, continues from the newest one."""
    execution: TrainExecution = TrainExecution()
    storage: Storage = Storage()

    @field_validator("name")
    @classmethod
    def _is_a_folder(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", value, re.ASCII):
            raise ValueError("names a folder: use letters, digits, `.`, `_` and `-`")
        return value

    @field_validator("ablation")
    @classmethod
    def _not_empty(cls, value: tuple[TrainedAblation, ...]) -> tuple[TrainedAblation, ...]:
        if not value:
            raise ValueError("is empty; name at least one")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        lengths: dict[str, Sequence[int]] = {"ablation.size": [ablation.size for ablation in self.ablation]}
        if self.validation is not None:
            lengths["validation.ablation.size"] = [self.validated_ablation.size]
            lengths["validation.patches"] = self.validation.patches
        refuse_misfits(self.preprocess, lengths)
        refuse_other_channels(self.model, self.preprocess)
        if self.regularisation.drop_path and "drop_path_rate" in self.model.options:
            raise ValueError("model.options: drop_path_rate is regularisation.drop_path; keep one of them")
        if self.images.limit is not None and not self.cache:
            raise ValueError("images.limit: needs cache: true; set it, or name fewer tars")
        if self.images.label is None:
            raise ValueError("images.label: null gives nothing to learn; name the member that holds the label")
        if self.validation is not None and self.validation.images.label is None:
            raise ValueError("validation.images.label: null gives nothing to compare with; name the member")
        if self.cache and self.augmentation.crop == "resized" and self.preprocess.resize is not None:
            raise ValueError(
                "cache: true keeps the crop of the certified image, of which `augmentation.crop: resized` would cut "
                "less than asked; use cache: false, or preprocess.resize: null"
            )
        if self.batch_size % self.execution.workers:
            raise ValueError(
                f"batch_size: {self.batch_size} is no multiple of execution.workers ({self.execution.workers}); use one"
            )
        return self

    @property
    def validated_ablation(self) -> Ablation:
        """The one on which held-out images are voted."""
        given = self.validation.ablation if self.validation is not None else None
        return given or Ablation(**self.ablation[0].model_dump(exclude={"weight"}))

    @property
    def url(self) -> str:
        """OUTPUT/NAME."""
        return f"{self.output.rstrip('/')}/{self.name}"

    def identity(self, shards: Sequence[Shard], checkpoint_sha256: str | None) -> dict[str, Any]:
        """What determines the weights that come out; fields at their default are left out.

        Where things lie and how many processes work is not in it.

        Args:
            shards: the tars in order; only base names and sizes count.
            checkpoint_sha256: of the weights to start from, None from scratch.
        """
        chosen = self.model_dump(mode="json", exclude_defaults=True, exclude=_DETERMINES_NOTHING)
        chosen["images"] = {key: value for key, value in chosen["images"].items() if key not in ("shards", "split")} | {
            "shards": [[shard.name, shard.size] for shard in shards]
        }
        chosen["model"] |= {"checkpoint": checkpoint_sha256}
        return chosen


def differences(then: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """The key paths at which two identities differ."""
    found = []
    for key in sorted(then.keys() | now.keys()):
        one, other = then.get(key), now.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += differences(one, other, f"{prefix}{key}.")
        elif one != other:
            found.append(f"{prefix}{key}")
    return found


def load_training(path: str | Path, overrides: Sequence[str] = ()) -> Training:
    """Read a training file; arguments and errors as of `load_job`."""
    return load_file(Training, path, overrides, kind="training file")
