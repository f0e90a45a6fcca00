"""The differentiable twin of a job's engine: for training, and for attacks.

A network with tokens that can be dropped is an AblatedForward, any other an AblatedDense. Both have the same methods.
Under cutout every network is an AblatedDense, because cutout leaves no tokens out.
"""

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from smoothcert.manifests.job import Preprocess
from smoothcert.workers.ablations.cutouts import CutoutSquares
from smoothcert.workers.ablations.shown import Painted, Shown
from smoothcert.workers.networks.classifiers import has_tokens
from smoothcert.workers.votes.ablated_dense import AblatedDense
from smoothcert.workers.votes.ablated_forward import AblatedForward

Differentiable = AblatedForward | AblatedDense


def differentiable(
    network: nn.Module,
    kinds: Sequence[Painted],
    preprocess: Preprocess,
    *,
    keep_hidden: bool = False,
    every_row: bool = False,
) -> Differentiable:
    """A network under ablations.

    Args:
        network: any classifier of timm; taken over and changed.
        kinds: ablations of images before they are upsampled.
        preprocess: mean and std of the channels, and how often a pixel is repeated.
        keep_hidden: compute every token; a network without tokens always does.
        every_row: compute all rows of the last block, not only those that the head reads.
    """
    with_tokens = [cast("Shown", kind) for kind in kinds if not isinstance(kind, CutoutSquares)]
    if has_tokens(network) and len(with_tokens) == len(kinds):
        return AblatedForward(network, with_tokens, preprocess, keep_hidden=keep_hidden, every_row=every_row)
    return AblatedDense(network, kinds, preprocess)


def logits_of(network: Differentiable, pixels_NCHW: Tensor, group: Any, *, recompute: bool) -> Tensor:
    """[S, K] float32 logits of a group, for a gradient with respect to the pixels.

    Args:
        network: in evaluation mode.
        pixels_NCHW: of the whole batch, 0 to 1.
        group: of this batch.
        recompute: compute activations again in the backward pass, so that memory must hold those of one group alone.
    """
    if recompute and pixels_NCHW.requires_grad:
        return checkpoint(network, pixels_NCHW, group, use_reentrant=False, preserve_rng_state=False).float()
    return network(pixels_NCHW, group).float()
