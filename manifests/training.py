"""The training file: which network learns from which images, under which ablations.

It is checked as strictly as a job file. The sections that a job file also has mean the same: a job with the same
`model`, `preprocess` and `ablation` certifies the trained network.

The defaults are the reference's recipe. Its README trains CIFAR-10 from pretrained weights with SGD, learning rate
0.01, times 0.1 every 10 of 30 epochs, batches of 128, weight decay 5e-4. Momentum 0.9 and, for ImageNet, weight
decay 1e-4 are defaults of its framework, github.com/MadryLab/robustness.
Source: Salman et al. 2021, arXiv:2110.07719, and github.com/MadryLab/smoothed-vit.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, Strict, field_validator, model_validator

from smoothcert.manifests.ablation import (
    Ablation,
    Fill,
    MaskAblation,
    Pixels,
    WindowAblation,
    ablation_of,
    lengths_of,
)
from smoothcert.manifests.job import (
    Auto,
    Count,
    Images,
    Network,
    OneOrMore,
    Preprocess,
    Storage,
    refuse_misfits,
    refuse_other_channels,
)
from smoothcert.manifests.lengths import Length
from smoothcert.manifests.locations import OptionalWeights, Output
from smoothcert.manifests.shards import Shard
from smoothcert.manifests.yaml_file import Complete, Part, load_file

_NOT_IN_IDENTITY = {"validation", "output", "checkpoint_every_epochs", "execution", "storage"}

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class TrainedModel(Network):
    checkpoint: OptionalWeights = None
    """File with the weights to start from; null: start from random weights."""
    checkpoint_classes: Annotated[int, Strict(), Field(ge=0)] | None = None
    """Number of classes of the checkpoint's head, which a new head replaces; 0: it has none; null: keep the head."""


class TrainedWindow(WindowAblation):
    weight: Positive = 1.0
    """How often this ablation is drawn, relative to the others."""


class TrainedMask(MaskAblation):
    weight: Positive = 1.0
    """How often this ablation is drawn, relative to the others."""

    @field_validator("early_exit")
    @classmethod
    def _draws_all(cls, value: bool) -> bool:
        if value:
            raise ValueError("leaves votes out, but a training draws from all; remove it")
        return value


class Cutout(Part):
    kind: Literal["cutout"]
    """Hides squares at random places, as the authors of double masking train."""
    side: Pixels
    """Side of a square in pixels; squares may reach over the edge of the image."""
    count: Literal[1, 2] = 2
    """Number of squares."""
    fill: Fill = "mean"
    """What hidden pixels become: black, or the mean of the normalisation."""
    weight: Positive = 1.0
    """How often this ablation is drawn, relative to the others."""


TrainedAblation = Annotated[TrainedWindow | TrainedMask | Cutout, Field(discriminator="kind")]


class Augmentation(Part):
    crop: Literal["none", "pad", "resized"] = "none"
    """none: the certified crop; pad: a random crop after adding a black border; resized: a random rectangle."""
    padding: Pixels = 4
    """Width of the border in pixels, for `pad`."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the image's area, for `resized`."""
    flip: Share = 0.5
    """Share of images whose left and right sides are swapped."""
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
        """Whether images are augmented one by one, because the libraries do not take batches."""
        return self.crop == "resized" or self.color_jitter > 0 or self.random is not None


class Optimizer(Part):
    name: str = "momentum"
    """A name of timm.optim.create_optimizer_v2: momentum (plain SGD), sgd (Nesterov's), adamw and many others."""
    lr: Positive = 0.01
    """Learning rate of the first epoch after the warm-up."""
    momentum: Share = 0.9
    """Momentum, for optimizers that have one."""
    weight_decay: NotNegative = 1e-4
    """Weight decay; biases and norms have none (timm's rule)."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Factor of the learning rate from each block to the previous one; null: the same rate for all."""
    clip_grad: Positive | None = None
    """Largest norm of the gradient; a larger gradient is scaled down. null: no limit."""
    options: dict[str, Any] = Field(default={})
    """Further arguments of the optimizer, such as {betas: [0.9, 0.99]}."""


class Schedule(Part):
    name: Literal["step", "cosine", "constant"] = "step"
    """How the learning rate decays."""
    decay_epochs: Positive = 10
    """Epochs between two decays, for `step`."""
    decay_rate: Positive = 0.1
    """Factor of a decay, for `step`."""
    warmup_epochs: NotNegative = 0
    """Epochs in which the learning rate rises from `warmup_lr` to `lr`."""
    warmup_lr: NotNegative = 0.0
    """Learning rate at the start of the warm-up."""
    min_lr: NotNegative = 0.0
    """Learning rate at the end, for `cosine`."""


class PatchSensitivity(Part):
    weight: Positive = 0.005
    """Weight of the term in the loss."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the tokens shown that are replaced by noise; at least one token."""


class Regularisation(Part):
    label_smoothing: Share = 0.0
    """Share of the target that is spread over all classes."""
    mixup: NotNegative = 0.0
    """Alpha of mixup (timm.data.Mixup); 0: no mixup. Each process mixes its own images."""
    cutmix: NotNegative = 0.0
    """Alpha of cutmix; 0: no cutmix. With mixup and cutmix, one of them is drawn for each batch."""
    drop_path: Share = 0.0
    """Stochastic depth of the last block; it falls linearly to 0 at the first."""
    patch_sensitivity: PatchSensitivity | None = None
    """A term that keeps the outputs of all blocks alike when a few tokens are noise (RSPC); null: no term."""


class Adversarial(Part):
    eps: Length
    """Largest length of a perturbation, for pixels from 0 to 1, such as 4/255."""
    norm: Literal["linf", "l2"] = "linf"
    """How the length of a perturbation is measured: linf: its largest number; l2: the root of the sum of squares."""
    steps: Count = 1
    """Steps of the attack (PGD), which starts at a random point within eps."""
    step_size: Length | None = None
    """Length of a step; null: 1.5 x eps / steps."""
    warmup_epochs: NotNegative = 10
    """Epochs in which eps rises linearly from 0. The step keeps its length."""
    loss: Literal["ce", "trades"] = "ce"
    """ce: cross-entropy of perturbed images; trades: that of clean images, plus `beta` times the KL divergence from
    clean to perturbed ones."""
    beta: Positive = 6.0
    """Weight of the divergence, for `trades`."""

    @property
    def step(self) -> float:
        """The length of a step."""
        return 1.5 * self.eps / self.steps if self.step_size is None else self.step_size


class Validation(Part):
    images: Images
    """Held-out images, described as in a job."""
    ablation: Ablation | None = None
    """Ablation of the votes; null: the first of the training's `ablation` that is no cutout, or the whole image."""
    patches: tuple[Pixels, ...] = ()
    """Sides of the square patches for which certified accuracy is reported."""
    every_epochs: Count = 5
    """Epochs from one validation to the next; the last epoch is always validated."""


class TrainExecution(Part):
    workers: Count = 1
    """Training processes that share each batch; several run under Ray Train."""
    gpus_per_worker: Annotated[NotNegative | None, Auto] = None
    """GPUs of one training process; auto: one, if there are enough for all."""
    cpus_per_worker: Positive = 1
    """CPU cores of one training process."""
    loaders: Annotated[int, Strict(), Field(ge=0)] = 0
    """Loader processes of each training process, which read and augment; 0: it does so itself."""
    max_failures: Annotated[int, Strict(), Field(ge=0)] = 3
    """How often all training processes restart from the newest checkpoint after one is lost."""
    images_per_forward: Count = 65536
    """Largest number of views in one forward and backward pass; fewer need less memory. The gradient stays the same,
    except for networks with batch norm, dropout or drop path."""


class Training(Part):
    name: str
    """Name of the folder in `output` that holds the results."""
    images: Images
    """Labelled images, described as in a job."""
    validation: Validation | None = None
    """Held-out images and what to report about them; null: no validation."""
    model: TrainedModel
    """The network to train."""
    preprocess: Preprocess = Preprocess()
    """The `preprocess` section of the job that will certify the network."""
    augmentation: Augmentation = Augmentation()
    """Random changes of an image before its ablation."""
    ablation: Annotated[tuple[TrainedAblation, ...] | None, OneOrMore]
    """One ablation, or several that are drawn by their weights; an offset is drawn for each image. null: all images
    are shown whole."""
    views_per_image: Count = 1
    """Views of an image in a step: under how many ablations it is shown. In the order of votes, these are evenly spread
    from a random start; a step takes as many times the work."""
    whole_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of views that show the whole image, without an ablation."""
    optimizer: Optimizer = Optimizer()
    """Optimizer of the weights."""
    schedule: Schedule = Schedule()
    """Schedule of the learning rate."""
    regularisation: Regularisation = Regularisation()
    """Reduces overfitting."""
    adversarial: Adversarial | None = None
    """Adversarial training: the network learns from images that an attack has perturbed; null: from clean ones."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of a moving average of the weights, which is then validated and published; null: no average."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the network's matrix products (autocast); weights stay float32."""
    publish_as: Literal["float32", "float16"] = "float32"
    """Number format of the published weights."""
    batch_size: Count = 128
    """Images in one step, over all training processes."""
    epochs: Count = 30
    """How often the network learns from each image."""
    seed: Annotated[int, Strict(), Field(ge=0)] = 0
    """Seed of all random numbers."""
    cache: bool = False
    """Keep the decoded pixels in memory, [images, crop, crop, channels] bytes; false: read the tars in each epoch."""
    shuffle_images: Count = 1024
    """Without `cache`: size of the buffer from which the next image is drawn; the tars are shuffled, too."""
    output: Output
    """Folder or s3:// URL that holds the trainings."""
    checkpoint_every_epochs: Count = 1
    """Epochs from one checkpoint to the next; after an interruption, the same command continues from the newest."""
    execution: TrainExecution = TrainExecution()
    """Who computes."""
    storage: Storage = Storage()
    """How to reach S3."""

    @field_validator("name")
    @classmethod
    def _is_a_folder(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", value, re.ASCII):
            raise ValueError("names a folder: use letters, digits, `.`, `_` and `-`")
        return value

    @field_validator("ablation")
    @classmethod
    def _not_empty(cls, value: tuple[TrainedAblation, ...] | None) -> tuple[TrainedAblation, ...] | None:
        if value == ():
            raise ValueError("is empty; name at least one, or write null to show images whole")
        return value

    @model_validator(mode="after")
    def _ablations_fit(self) -> Self:
        voting = [ablation for ablation in self.ablation or () if not isinstance(ablation, Cutout)]
        lengths: dict[str, Sequence[int]] = {**lengths_of("ablation", *voting)}
        if self.validation is not None:
            lengths |= lengths_of("validation.ablation", self.validated_ablation)
            lengths["validation.patches"] = self.validation.patches
        refuse_misfits(self.preprocess, lengths)
        if len(fills := {ablation.fill for ablation in self.ablation or ()}) > 1:
            raise ValueError(
                f"ablation: hidden pixels become {' or '.join(sorted(fills))}; give all ablations the same fill "
                "(columns, rows and blocks are black)"
            )
        if len(voting) < len(self.ablation or ()) and self.model.masked_tokens == "drop":
            raise ValueError("ablation: cutout leaves no tokens out; set model.masked_tokens to keep, or use mask")
        refuse_other_channels(self.model, self.preprocess)
        if self.preprocess.decoder != "pillow":
            raise ValueError(
                f"preprocess.decoder: {self.preprocess.decoder} is for jobs; a training decodes with Pillow, so leave "
                "decoder out"
            )
        return self

    @model_validator(mode="after")
    def _lessons_fit(self) -> Self:
        """What the network sees and is asked while it learns."""
        if self.ablation is None and self.whole_share:
            raise ValueError("whole_share: ablation: null shows all images whole; leave one of them out")
        if self.ablation is None and self.views_per_image > 1:
            raise ValueError("views_per_image: ablation: null shows all images whole, so views are alike; use 1")
        if self.adversarial is not None and self.adversarial.warmup_epochs >= self.epochs:
            raise ValueError(
                f"adversarial.warmup_epochs: {self.adversarial.warmup_epochs:g} of {self.epochs} epochs leave none "
                "with the whole eps; lower it"
            )
        if self.adversarial is not None and self.regularisation.patch_sensitivity is not None:
            raise ValueError("adversarial: does not go together with regularisation.patch_sensitivity; set one to null")
        if self.regularisation.drop_path and "drop_path_rate" in self.model.options:
            raise ValueError("model.options: drop_path_rate is regularisation.drop_path; keep one of them")
        return self

    @model_validator(mode="after")
    def _images_fit(self) -> Self:
        if self.images.limit is not None and not self.cache:
            raise ValueError("images.limit: needs cache: true; set it, or name fewer tars")
        if self.images.label is None:
            raise ValueError("images.label: null leaves nothing to learn; name the member that holds the label")
        if self.validation is not None and self.validation.images.label is None:
            raise ValueError("validation.images.label: null leaves nothing to compare with; name the member")
        if self.cache and self.augmentation.crop == "resized" and self.preprocess.resize is not None:
            raise ValueError(
                "cache: true keeps only the certified crop, so `augmentation.crop: resized` would cut smaller "
                "parts than asked for; use cache: false, or preprocess.resize: null"
            )
        if self.batch_size % self.execution.workers:
            raise ValueError(
                f"batch_size: {self.batch_size} is not a multiple of execution.workers ({self.execution.workers}); "
                "use a multiple"
            )
        return self

    @property
    def validated_ablation(self) -> Ablation:
        """The ablation of the votes on held-out images."""
        if self.validation is not None and self.validation.ablation is not None:
            return self.validation.ablation
        voting = next((ablation for ablation in self.ablation or () if not isinstance(ablation, Cutout)), None)
        if voting is None:
            crop = self.preprocess.crop
            return WindowAblation(kind="column", size=crop, stride=crop)  # one column, the whole image
        return ablation_of(voting.model_dump(exclude={"weight"}))

    @property
    def url(self) -> str:
        """OUTPUT/NAME."""
        return f"{self.output.rstrip('/')}/{self.name}"

    def identity(self, shards: Sequence[Shard], checkpoint_sha256: str | None) -> dict[str, Any]:
        """All that determines the trained weights; fields with their default value are left out.

        It leaves out where files lie, how many processes work, and what is only reported.

        Args:
            shards: the tars in order; only base names and sizes count.
            checkpoint_sha256: of the weights to start from; None: random weights.
        """
        chosen = self.model_dump(mode="json", exclude_defaults=True, exclude=_NOT_IN_IDENTITY)
        chosen["images"] = {key: value for key, value in chosen["images"].items() if key not in ("shards", "split")} | {
            "shards": [[shard.name, shard.size] for shard in shards]
        }
        chosen["model"] |= {"checkpoint": checkpoint_sha256}
        return chosen


def load_training(path: str | Path, overrides: Sequence[str] = (), *, complete: Complete = lambda _: None) -> Training:
    """Read a training file; arguments and errors as for `load_job`."""
    return load_file(Training, path, overrides, kind="training file", complete=complete)
