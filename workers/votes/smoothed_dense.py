"""Images to votes by any timm classifier: every pixel is computed, hidden ones are black.

    N images    A ablations of an image    S sequences: an ablation of an image each    K classes
    H side of an image    W side of what the network sees, upsampled    C channels: 3, or 1 of gray images

The network runs as timm runs it, in the job's number format; its last layer, which gives the logits, in float32. With
batch norm in evaluation mode no image sees another.

Not covered: leaving hidden tokens out, many times faster where it can be done (smoothed_vit.py).
Source: Levine & Feizi 2020, arXiv:2002.10733, for convolutional networks; pixels are hidden before normalisation.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Model, Preprocess
from smoothcert.workers.ablations.geometry import Geometry
from smoothcert.workers.votes.smoothed import Computed, Smoothed, upsampled

# Pixels that the network sees in one go. They bound the memory: the widest moment of a network holds some 100 numbers a
# pixel (ConvNeXt-B 96, ResNet-50 64).
_PIXELS_AT_ONCE = {"cpu": 16 * 224**2, "cuda": 512 * 224**2}


class _Shown(NamedTuple):
    """What ablations show, uint8, 1 where a pixel does: a geometry's tables as tensors."""

    rows: Tensor  # [vertical offsets, H]
    columns: Tensor  # [horizontal offsets, H]


class SmoothedDense(Smoothed):
    """A classifier that votes on images of which most is black.

    Args:
        network: as classifiers.load_classifier returns it, float32 on the CPU; taken over and changed.
        geometry: the ablations of an image, before it is upsampled.
        preprocess: mean and std of the channels, and how often a pixel is repeated.
        model: number format of the network.
        device: where to compute.
    Raises:
        RequestError: the network cannot classify such images in this number format.
    """

    def __init__(
        self, network: nn.Module, geometry: Geometry, *, preprocess: Preprocess, model: Model, device: torch.device
    ) -> None:
        super().__init__(
            num_ablations=geometry.num_ablations,
            num_classes=model.classes,
            device=device,
            at_once=_PIXELS_AT_ONCE[device.type],
        )
        self._network = network.to(device).eval()
        self._dtype = getattr(torch, model.dtype)
        _to_dtype(network, self._dtype)
        self._side, self._upsample = preprocess.network_side, preprocess.upsample
        self._mean, self._std = (
            torch.tensor(values, device=device)[:, None, None] for values in (preprocess.mean, preprocess.std)
        )
        whole = Geometry.whole(geometry.height, geometry.width)
        self._ablated, self._whole = self._shown(geometry), self._shown(whole)
        _refuse_batch_statistics(network, model)
        black = torch.zeros(1, geometry.height, geometry.width, preprocess.channels, dtype=torch.uint8)
        self._try_out(model, black)

    def one_logits(self, image: Tensor, ablation: Geometry, *, keep_hidden: bool) -> Tensor:  # noqa: ARG002  all are
        return next(self._computed(image[None], self._shown(ablation))).logits[0]

    def _ablated_logits(self, images: Tensor) -> Iterator[Computed]:
        return self._computed(images, self._ablated)

    def _whole_logits(self, images: Tensor) -> Iterator[Computed]:
        return self._computed(images, self._whole)

    def _computed(self, images: Tensor, shown: _Shown) -> Iterator[Computed]:
        compute = partial(self._part_logits, images.to(self._device), shown)
        A = len(shown.rows) * len(shown.columns)
        for part_S, logits_SK in self._in_parts(len(images) * A, self._side**2, compute):
            yield Computed(part_S // A, part_S % A, logits_SK)

    @torch.inference_mode()
    def _part_logits(self, images_NHHC: Tensor, shown: _Shown, part_S: Tensor) -> Tensor:
        across = len(shown.columns)
        A = len(shown.rows) * across
        rows_SH, columns_SH = shown.rows[part_S % A // across], shown.columns[part_S % A % across]
        images_SHHC = images_NHHC[part_S // A] * rows_SH[:, :, None, None] * columns_SH[:, None, :, None]
        pixels_SCWW = upsampled(images_SHHC, self._upsample).permute(0, 3, 1, 2).float() / 255
        return self._network(((pixels_SCWW - self._mean) / self._std).to(self._dtype)).float()

    def _shown(self, geometry: Geometry) -> _Shown:
        return _Shown(
            torch.from_numpy(geometry.rows).to(self._device, torch.uint8),
            torch.from_numpy(geometry.columns).to(self._device, torch.uint8),
        )

    def _try_out(self, model: Model, black: Tensor) -> None:
        """Classify a black image: some networks take no image of this size, or lack an operation in this format."""
        try:
            shape = tuple(next(self._whole_logits(black)).logits.shape)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, ValueError, AssertionError, AttributeError) as error:
            raise RequestError(
                f"model: {model.architecture} cannot classify {self._side} x {self._side} pixels in {model.dtype}: "
                f"{' '.join(str(error).split())[:160]}; use another crop, upsample, dtype or architecture"
            ) from None
        if shape != (1, self._num_classes):
            raise RequestError(
                f"model: {model.architecture} with options {model.options} gives {list(shape)} for an image, not "
                f"{self._num_classes} logits; use a classifier, with a pooling"
            )


def _refuse_batch_statistics(network: nn.Module, model: Model) -> None:
    """A batch norm that keeps no statistics takes those of the batch, so that a patch could reach every vote."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            raise RequestError(
                f"model: {name} of {model.architecture} takes statistics of a batch, so votes would depend on other "
                "ablations, and no certificate would hold; use a network whose norms keep theirs"
            )


def _to_dtype(network: Any, dtype: torch.dtype) -> None:
    """All but the last layers, which take their input to float32: logits in bfloat16 tie too often."""
    last = network.get_classifier()  # as every classifier of timm has
    last_layers = last if isinstance(last, tuple) else (last,)
    exact = {id(tensor) for layer in last_layers for tensor in (*layer.parameters(), *layer.buffers())}
    for tensor in (*network.parameters(), *network.buffers()):
        if id(tensor) not in exact and tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
    for layer in last_layers:
        layer.register_forward_pre_hook(lambda _layer, inputs: tuple(value.float() for value in inputs))
