"""Images to votes with any timm classifier. It computes every pixel; hidden pixels are black or the mean.

    N images    A ablations of an image    S sequences: each one ablation of one image    K classes
    H side of an image    W side of what the network sees, upsampled    C channels: 3, or 1 for gray images

The network runs as timm runs it, in the job's number format. Only its last layer, which gives the logits, runs in
float32. With batch norm in evaluation mode no image changes the logits of another.

Not covered: leaving hidden tokens out, which is many times faster if the network allows it (smoothed_vit.py).
Source: Levine & Feizi 2020, arXiv:2002.10733, for convolutional networks; pixels are hidden before normalisation.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Preprocess
from smoothcert.workers.ablations.shown import Masks, Shown
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.refusals import one_line_if_refused
from smoothcert.workers.votes.smoothed import Computed, Smoothed, upsampled
from smoothcert.workers.votes.visible import VisiblePixels

# Pixels that the network sees in one go. They bound the memory: a network holds at most some 100 numbers a pixel at
# once (ConvNeXt-B 96, ResNet-50 64).
_PIXELS_AT_ONCE = {"cpu": 16 * 224**2, "cuda": 512 * 224**2}


class SmoothedDense(Smoothed):
    """A classifier that votes on images whose hidden pixels it computes, too.

    Args:
        network: in evaluation mode, float32; taken over and changed.
        shown: the ablations of an image, before it is upsampled.
        preprocess: mean and std of the channels, and how often a pixel is repeated.
        format: of the network.
        device: where to compute.
    Raises:
        RequestError: the network cannot classify such images in this number format.
    """

    def __init__(
        self, network: nn.Module, shown: Shown, *, preprocess: Preprocess, format: Format, device: torch.device
    ) -> None:
        super().__init__(
            num_ablations=shown.num_ablations,
            num_classes=format.classes,
            device=device,
            at_once=_PIXELS_AT_ONCE[device.type],
        )
        self._network = network.to(device).eval()
        self._dtype = _to_dtype(network, format)
        self._upsample = preprocess.upsample
        self._side = shown.height * self._upsample
        self._mean, self._std = (
            torch.tensor(values, device=device)[:, None, None] for values in (preprocess.mean, preprocess.std)
        )
        self._ablated = VisiblePixels([shown], device)
        self._whole = VisiblePixels([Masks.whole(shown.height, shown.width)], device)
        _refuse_batch_statistics(network, format)
        self._try_out(format, torch.zeros(1, shown.height, shown.width, preprocess.channels, dtype=torch.uint8))

    def one_logits(self, image: Tensor, ablation: Shown, *, keep_hidden: bool) -> Tensor:  # noqa: ARG002  all are
        return next(self._computed(image[None], VisiblePixels([ablation], self._device))).logits[0]

    def _ablated_logits(self, images: Tensor, wanted: Tensor | None = None) -> Iterator[Computed]:
        return self._computed(images, self._ablated, wanted)

    def _whole_logits(self, images: Tensor) -> Iterator[Computed]:
        return self._computed(images, self._whole)

    def _computed(self, images: Tensor, visible: VisiblePixels, wanted_NA: Tensor | None = None) -> Iterator[Computed]:
        compute = partial(self._part_logits, images.to(self._device), visible)
        A = visible.num_ablations
        sequences = torch.arange(len(images) * A, device=self._device)
        if wanted_NA is not None:
            sequences = sequences[wanted_NA.flatten()]
        for part_S, logits_SK in self._in_parts(sequences, self._side**2, compute):
            yield Computed(part_S // A, part_S % A, logits_SK)

    @torch.inference_mode()
    def _part_logits(self, images_NHHC: Tensor, visible: VisiblePixels, part_S: Tensor) -> Tensor:
        A = visible.num_ablations
        visible_SHH1 = visible.of(part_S % A)[:, :, :, None]
        images_SHHC = images_NHHC[part_S // A] * visible_SHH1
        pixels_SCWW = upsampled(images_SHHC, self._upsample).permute(0, 3, 1, 2).float() / 255
        normalised_SCWW = (pixels_SCWW - self._mean) / self._std
        if visible.fill == "mean":
            normalised_SCWW *= upsampled(visible_SHH1, self._upsample).permute(0, 3, 1, 2)
        return self._network(normalised_SCWW.to(self._dtype)).float()

    def _try_out(self, format: Format, black: Tensor) -> None:
        """Classify a black image: some networks take no image of this size, or lack an operation in this format."""
        with one_line_if_refused("an image", format, self._side):
            shape = tuple(next(self._whole_logits(black)).logits.shape)
        if shape != (1, self._num_classes):
            raise RequestError(
                f"model: {format.name} gives {list(shape)} for an image, not {self._num_classes} logits; use a "
                "classifier, with a pooling"
            )


def _refuse_batch_statistics(network: nn.Module, format: Format) -> None:
    """A batch norm without statistics of its own takes those of the batch, so a patch could change every vote."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            raise RequestError(
                f"model: {name} of {format.name} takes statistics of a batch, so votes would depend on other "
                "ablations and no certificate would hold; use a network whose norms keep statistics of their own"
            )


def _to_dtype(network: Any, format: Format) -> torch.dtype:
    """Convert all but the last layers. Those convert their input to float32: logits in bfloat16 tie too often."""
    if format.dtype == "int8":
        raise RequestError(f"model.dtype: int8 is for Vision Transformers, not for {format.name}; use bfloat16")
    dtype: torch.dtype = getattr(torch, format.dtype)
    if not hasattr(network, "get_classifier"):  # a network of the user's own code
        if dtype != torch.float32:
            raise RequestError(
                f"model.dtype: {format.name} has no get_classifier(), so its last layer is not known; use float32, or "
                "give it this method"
            )
        return dtype
    last = network.get_classifier()  # as every classifier of timm has
    last_layers = last if isinstance(last, tuple) else (last,)
    exact = {id(tensor) for layer in last_layers for tensor in (*layer.parameters(), *layer.buffers())}
    for tensor in (*network.parameters(), *network.buffers()):
        if id(tensor) not in exact and tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
    for layer in last_layers:
        layer.register_forward_pre_hook(lambda _layer, inputs: tuple(value.float() for value in inputs))
    return dtype
