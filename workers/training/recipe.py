"""What a training file asks for: network, ablations, optimizer, schedule and mixup, made by timm's factories.

Not covered: images and their augmentation (data.py, augmentation.py); the loop (loop.py).
"""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import timm.optim
import timm.scheduler
import torch
from timm.data import Mixup
from torch import Tensor, nn

from smoothcert.manifests.ablation import MaskAblation, WindowAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Model
from smoothcert.manifests.names import one_line
from smoothcert.manifests.training import Cutout, Training
from smoothcert.workers.ablations.cutouts import CutoutSquares
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.shown import Masks, Painted
from smoothcert.workers.networks.checkpoints import recognise
from smoothcert.workers.networks.classifiers import build_classifier, load_classifier
from smoothcert.workers.storage.store import Store
from smoothcert.workers.training.augmentation import Draws
from smoothcert.workers.votes.differentiable import Differentiable, differentiable
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.voters import smooth


def kinds_of(training: Training) -> list[Painted]:
    """The ablations of a training file in order, then the whole image if some images are shown whole."""
    crop, ablations = training.preprocess.crop, training.ablation or ()
    whole = [Masks.whole(crop, crop)] if training.whole_share > 0 or not ablations else []
    return [*(_kind_of(ablation, crop) for ablation in ablations), *whole]


def _kind_of(ablation: WindowAblation | MaskAblation | Cutout, crop: int) -> Painted:
    if isinstance(ablation, Cutout):
        return CutoutSquares(crop, crop, ablation.side, ablation.count, ablation.fill)
    return ablations_of(ablation, crop, crop)


def draw_ablations(training: Training, kinds: Sequence[Painted], draws: Draws) -> Tensor:
    """[images] int64: an ablation for each image, numbered as in VisiblePixels.

    Args:
        training: says how often each kind is drawn.
        kinds: of `kinds_of`.
        draws: numbers from 0 to 1.
    """
    weights = torch.tensor([ablation.weight for ablation in training.ablation or ()], dtype=torch.float64)
    shares = weights / weights.sum() * (1 - training.whole_share)
    which = torch.bucketize(torch.from_numpy(draws.ablation), shares.cumsum(0), right=True)
    which = which.clamp(max=len(kinds) - 1)
    sizes = torch.tensor([kind.num_ablations for kind in kinds])
    starts = sizes.cumsum(0) - sizes
    return starts[which] + (torch.from_numpy(draws.offset) * sizes[which]).long()


def forward_of(training: Training, network: nn.Module) -> Differentiable:
    """The network under its ablations; if it has tokens, hidden ones are left out unless the file keeps them."""
    return differentiable(
        network,
        kinds_of(training),
        training.preprocess,
        keep_hidden=training.model.masked_tokens == "keep",
        every_row=training.regularisation.patch_sensitivity is not None,
    )


def starting_network(training: Training, store: Store) -> nn.Module:
    """The network before the first step: with random weights, or those of the checkpoint and, if asked for, a new head.

    Raises:
        RequestError: timm has no such classifier, the weights are not that network's, or it could not vote later.
    """
    network = _network_of(training, store)
    crop = training.preprocess.crop
    smooth(
        copy.deepcopy(network).eval().requires_grad_(False),
        ablations_of(training.validated_ablation, crop, crop),
        preprocess=training.preprocess,
        format=Format.of(training.model),
        device=torch.device("cpu"),
    )
    return network


def _network_of(training: Training, store: Store) -> nn.Module:
    chosen, preprocess = training.model, training.preprocess
    drop_path = training.regularisation.drop_path
    options = chosen.options | ({"drop_path_rate": drop_path} if drop_path else {})  # not every classifier takes it
    if chosen.checkpoint is None:
        return build_classifier(chosen.model_copy(update={"options": options}), preprocess.network_side)
    model = Model.model_validate(chosen.model_dump(exclude={"checkpoint_classes"}) | {"options": options})
    if chosen.checkpoint_classes is not None:
        model = model.model_copy(update={"classes": chosen.checkpoint_classes})
    with store.local(model.checkpoint) as file:
        key = recognise(file, model.checkpoint_key, url=model.checkpoint).key
        network = load_classifier(model, preprocess, file, key).requires_grad_(True)
    if chosen.checkpoint_classes is not None:
        cast("Any", network).reset_classifier(chosen.classes)  # every classifier of timm has it
    return network


def optimizer_of(training: Training, network: nn.Module) -> torch.optim.Optimizer:
    """timm's optimizer of the name in the training file, with timm's groups of parameters.

    Raises:
        RequestError: timm does not know the optimizer, or one of its options.
    """
    chosen = training.optimizer
    if "muon" in chosen.name.lower():
        _orthogonalise_in_float32()
    try:
        return timm.optim.create_optimizer_v2(
            network,
            chosen.name,
            lr=chosen.lr,
            weight_decay=chosen.weight_decay,
            momentum=chosen.momentum,
            layer_decay=chosen.layer_decay,
            **chosen.options,
        )
    except (ValueError, TypeError, AssertionError, RuntimeError, KeyError) as error:
        raise RequestError(
            f"optimizer: timm cannot make {chosen.name!r} with options {chosen.options}: "
            f"{one_line(error)}; see timm.optim.list_optimizers()"
        ) from None


def _orthogonalise_in_float32() -> None:
    """timm's Muon orthogonalises in bfloat16, without an option; this is very slow on processors without AMX."""
    from timm.optim import muon

    if not isinstance(muon.zeropower_via_newtonschulz, partial):
        muon.zeropower_via_newtonschulz = partial(muon.zeropower_via_newtonschulz, dtype=torch.float32)


def scheduler_of(training: Training, optimizer: torch.optim.Optimizer) -> timm.scheduler.scheduler.Scheduler:
    """timm's schedule of the name in the training file; its `step` takes the epochs done, which may be a fraction."""
    chosen = training.schedule
    scheduler, _ = timm.scheduler.create_scheduler_v2(
        optimizer,
        sched=chosen.name,
        num_epochs=training.epochs,
        decay_epochs=chosen.decay_epochs,
        decay_rate=chosen.decay_rate,
        min_lr=chosen.min_lr,
        warmup_lr=chosen.warmup_lr,
        warmup_epochs=chosen.warmup_epochs,
    )
    return scheduler


def mixup_of(training: Training) -> Mixup | None:
    """Mixup, cutmix, or one of both for each batch; None if the training file asks for neither."""
    chosen = training.regularisation
    if not (chosen.mixup or chosen.cutmix):
        return None
    return Mixup(
        mixup_alpha=chosen.mixup,
        cutmix_alpha=chosen.cutmix,
        label_smoothing=chosen.label_smoothing,
        num_classes=training.model.classes,
    )
