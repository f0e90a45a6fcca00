"""How sensitive a classifier is to a few tokens of the whole image. A measurement, never a certificate.

Each draw chooses some tokens of an image and changes them in three ways, always the same tokens:

    occluded    numbers from [0, 1) take the place of the normalised pixels
    corrupted   Gaussian noise is added to the pixels, which stay within 0 and 1
    hidden      the tokens are left out; a network that cannot leave tokens out, or a job that keeps them, sees black

The margin is the logit of the class that the network predicts for the clean image, minus the largest other logit. Its
change is the clean margin minus the perturbed one, so a loss is positive. A network without tokens has cells instead:
those of its patch embedding, or up to 14 x 14, which are cells of 16 pixels in an image of 224.

Attention's drift at a layer is the mean total variation distance between the attention of a token in the clean and in
the perturbed image, over heads and over the tokens that the draw leaves as they are. It lies between 0 and 1. A token
that is left out gets no attention. Known only for timm's own Attention in a network whose tokens can be left out.

    S sequences: each one draw of one way    T tokens of the image    p prefix tokens    h heads    C channels
    W side of what the network sees

Images go through the network one by one, so no row depends on which images are measured together.
Source: Guo, Stutz, Schiele 2023, "Improving robustness of vision transformers by reducing sensitivity to patch
corruptions"; there, tokens are occluded by such noise.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from timm.layers import Attention
from timm.models import VisionTransformer
from torch import Tensor, nn

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Preprocess
from smoothcert.manifests.studies import Sensitivity
from smoothcert.workers.networks.classifiers import has_tokens
from smoothcert.workers.runs.votes_table import column
from smoothcert.workers.studies.measures import Kind, Loader, Studied
from smoothcert.workers.studies.whole_images import normalised
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.refusals import one_line_if_refused
from smoothcert.workers.votes.smoothed import without_tf32

WAYS = ("occluded", "corrupted", "hidden")

_CELLS = 14  # along a side
_PIXELS_AT_ONCE = {"cpu": 16 * 224**2, "cuda": 128 * 224**2}  # of what the network sees; bounds the memory

_FLOATS = pa.list_(pa.float32())

COLUMNS = pa.schema(
    [
        column("prediction", pa.int32(), "Class of the clean whole image.", nullable=True),
        column("margin", pa.float32(), "Clean logit of that class minus the largest other one.", nullable=True),
        *(
            column(f"{way}_changed", pa.float32(), "Share of draws in which the prediction changes.", nullable=True)
            for way in WAYS
        ),
        *(
            column(f"{way}_margin_change", pa.float32(), "Clean margin minus that of a draw, the mean.", nullable=True)
            for way in WAYS
        ),
        *(
            column(f"{way}_drift", _FLOATS, "Drift of attention at each layer; null if unknown.", nullable=True)
            for way in WAYS
        ),
        column(
            "tokens",
            _FLOATS,
            "Change of the margin if a token is occluded alone, row by row; null if not asked for.",
            nullable=True,
        ),
    ]
)


class _Draws(NamedTuple):
    """What one image's seed gives.

    Attributes:
        chosen: [draws, T] bool, the perturbed tokens.
        noise: [draws, C, W, W], from [0, 1).
        added: [draws, C, W, W], Gaussian with standard deviation 1.
        alone: [C, W, W], from [0, 1), for each token alone.
    """

    chosen: Tensor
    noise: Tensor
    added: Tensor
    alone: Tensor


class _Perturbed(NamedTuple):
    """Attributes:
    logits: [draws, classes].
    drift: mean over the draws for each layer; None if attention is not known.
    """

    logits: Tensor
    drift: list[float] | None


class SensitivityMeasures:
    """Measures images with one network.

    Args:
        network: any classifier, float32, in evaluation mode; not changed.
        preprocess: of the job.
        format: of the network; says whether hidden tokens are black instead of left out.
        settings: of the study.
        device: where to compute.
    Attributes:
        forwards: how often an image went through the network so far.
    Raises:
        RequestError: the share leaves no token as it is, or the network cannot classify such images.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        preprocess: Preprocess,
        format: Format,
        settings: Sensitivity,
        device: torch.device,
    ) -> None:
        without_tf32()
        self._network = network.to(device).eval()
        self._preprocess, self._settings, self._device = preprocess, settings, device
        self.forwards = 0
        self._side = preprocess.network_side
        self._cell_px = _cell_px(network, self._side)
        self.cells = math.ceil(self._side / self._cell_px) ** 2
        self._chosen = max(1, round(settings.share * self.cells))
        if self._chosen >= self.cells:
            raise RequestError(
                f"share: {settings.share} of {self.cells} tokens leaves none as it is; use a smaller share"
            )
        self._vit = network if has_tokens(network) else None
        self._drops = self._vit is not None and not format.keep_hidden
        self._attentions = _attentions(self._vit)
        self._at_once = max(1, _PIXELS_AT_ONCE[device.type] // self._side**2)
        mean, std = torch.tensor([preprocess.mean, preprocess.std], device=device)[:, :, None, None]
        self._mean_C11, self._std_C11 = mean, std
        with torch.inference_mode(), one_line_if_refused("an image", format, self._side):
            self._logits(torch.zeros(1, preprocess.channels, self._side, self._side, device=device))

    def measure(self, images: Studied) -> list[dict[str, Any]]:
        """The columns of each image; `error` instead for an image with a logit that is not finite."""
        return [self._row(image, seed) for image, seed in zip(images.pixels, images.seeds, strict=True)]

    @torch.inference_mode()
    def _row(self, image_HWC: Tensor, seed: int) -> dict[str, Any]:
        image_CWW = normalised(image_HWC[None].to(self._device), self._preprocess)[0]
        draws = self._draw(seed)
        clean_hNN: list[Tensor] = []
        with _seen(self._attentions, lambda _, weights: clean_hNN.append(weights[0])):
            clean_K = self._logits(image_CWW[None])[0]
        perturbed = {way: self._perturbed(image_CWW, draws, way, clean_hNN) for way in WAYS}
        logits = {way: each.logits for way, each in perturbed.items()}
        if self._settings.by_token:
            logits["tokens"] = self._token_logits(image_CWW, draws.alone)
        if not all(bool(each.isfinite().all()) for each in (clean_K, *logits.values())):
            return {"error": "a logit is not finite"}
        top = int(clean_K.argmax())
        margin = _margins(clean_K[None], top)
        row: dict[str, Any] = {"prediction": top, "margin": float(margin)}
        for way in WAYS:
            row[f"{way}_changed"] = float((logits[way].argmax(1) != top).float().mean())
            row[f"{way}_margin_change"] = float((margin - _margins(logits[way], top)).mean())
            row[f"{way}_drift"] = perturbed[way].drift
        if self._settings.by_token:
            row["tokens"] = (margin - _margins(logits["tokens"], top)).tolist()
        return row

    def _draw(self, seed: int) -> _Draws:
        """Draws on the CPU, whose generator gives the same numbers on every machine."""
        generator, R = torch.Generator().manual_seed(seed), self._settings.draws
        shape = (R, self._preprocess.channels, self._side, self._side)
        order_RT = torch.rand(R, self.cells, generator=generator).argsort(dim=1)
        chosen_RT = torch.zeros(R, self.cells, dtype=torch.bool).scatter_(1, order_RT[:, : self._chosen], value=True)
        noise, added = torch.rand(shape, generator=generator), torch.randn(shape, generator=generator)
        alone = torch.rand(shape[1:], generator=generator)
        return _Draws(*(each.to(self._device) for each in (chosen_RT, noise, added, alone)))

    def _perturbed(self, image_CWW: Tensor, draws: _Draws, way: str, clean_hNN: Sequence[Tensor]) -> _Perturbed:
        """All draws of one way, compared with the attention of the clean image."""
        drift_L = torch.zeros(len(clean_hNN), device=self._device)
        parts = []
        for part in torch.arange(self._settings.draws, device=self._device).split(self._at_once):
            some = _Draws(draws.chosen[part], draws.noise[part], draws.added[part], draws.alone)

            def compare(layer: int, weights_Shnn: Tensor, chosen_ST: Tensor = some.chosen) -> None:
                drift_L[layer] += _drift(clean_hNN[layer], weights_Shnn, chosen_ST).sum()

            with _seen(self._attentions, compare):
                parts.append(self._part_logits(image_CWW, some, way))
        return _Perturbed(torch.cat(parts), (drift_L / self._settings.draws).tolist() or None)

    def _part_logits(self, image_CWW: Tensor, draws: _Draws, way: str) -> Tensor:
        if way == "hidden" and self._drops:
            kept_Sn = torch.nonzero(~draws.chosen)[:, 1].unflatten(0, (len(draws.chosen), -1))
            return self._logits_of_some(image_CWW, kept_Sn)
        if way == "occluded":
            other_SCWW = draws.noise
        elif way == "corrupted":
            pixels_CWW = image_CWW * self._std_C11 + self._mean_C11
            noisy_SCWW = (pixels_CWW + self._settings.noise * draws.added).clamp(0, 1)
            other_SCWW = (noisy_SCWW - self._mean_C11) / self._std_C11
        else:
            other_SCWW = (-self._mean_C11 / self._std_C11)[None]
        return self._logits(torch.where(self._pixels_of(draws.chosen), other_SCWW, image_CWW))

    def _token_logits(self, image_CWW: Tensor, noise_CWW: Tensor) -> Tensor:
        """[T, classes], each token occluded alone."""
        return torch.cat(
            [
                self._logits(torch.where(self._pixels_of(chosen_ST), noise_CWW, image_CWW))
                for chosen_ST in torch.eye(self.cells, dtype=torch.bool, device=self._device).split(self._at_once)
            ]
        )

    def _pixels_of(self, chosen_ST: Tensor) -> Tensor:
        """[S, 1, W, W] bool; the last cells of a side may be cut off."""
        grid_Sgg = chosen_ST.unflatten(1, (math.isqrt(self.cells), -1))
        large = grid_Sgg.repeat_interleave(self._cell_px, 1).repeat_interleave(self._cell_px, 2)
        return large[:, None, : self._side, : self._side]

    def _logits(self, images_SCWW: Tensor) -> Tensor:
        self.forwards += len(images_SCWW)
        return self._network(images_SCWW).float()

    def _logits_of_some(self, image_CWW: Tensor, kept_Sn: Tensor) -> Tensor:
        """[S, classes] of an image of which each sequence shows some tokens: timm's own forward, with a selection."""
        network = self._vit
        assert network is not None
        self.forwards += len(kept_Sn)
        tokens_1TD = network._pos_embed(network.patch_embed(image_CWW[None]))
        prefix, rest_TD = tokens_1TD[:, : network.num_prefix_tokens], tokens_1TD[0, network.num_prefix_tokens :]
        tokens_SnD = torch.cat([prefix.expand(len(kept_Sn), -1, -1), rest_TD[kept_Sn]], dim=1)
        tokens_SnD = network.norm_pre(tokens_SnD)
        return network.forward_head(network.norm(network.blocks(tokens_SnD))).float()


@contextmanager
def _seen(attentions: Sequence[Attention], see: Callable[[int, Tensor], None]) -> Iterator[None]:
    """While the network runs, show the layer's number and its attention, [S, h, tokens, tokens]."""

    def show(layer: int, attention: Attention, inputs: tuple[Tensor, ...]) -> None:
        see(layer, _weights(attention, inputs[0]))

    hooks = [each.register_forward_pre_hook(partial(show, layer)) for layer, each in enumerate(attentions)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _weights(attention: Attention, tokens_SnD: Tensor) -> Tensor:
    """[S, h, n, n]: timm's attention up to its softmax."""
    heads = (3, attention.num_heads, attention.head_dim)
    queries, keys, _ = attention.qkv(tokens_SnD).unflatten(2, heads).permute(2, 0, 3, 1, 4)
    queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    return (queries * attention.scale @ keys.transpose(2, 3)).softmax(dim=-1)


def _drift(clean_hNN: Tensor, other_Shnn: Tensor, chosen_ST: Tensor) -> Tensor:
    """[S]: mean total variation distance over heads and over the prefix and the tokens that were not chosen.

    Args:
        clean_hNN: of the clean image, N = p + T.
        other_Shnn: of the sequences, with all tokens or without those that were chosen.
        chosen_ST: the perturbed tokens.
    """
    S, N = len(chosen_ST), clean_hNN.shape[1]
    kept_SN = torch.cat([chosen_ST.new_ones(S, N - chosen_ST.shape[1]), ~chosen_ST], dim=1)
    if other_Shnn.shape[-1] < N:
        there_Sn = torch.nonzero(kept_SN)[:, 1].unflatten(0, (S, -1))
        all_SNNh = other_Shnn.new_zeros(S, N, N, other_Shnn.shape[1])
        sequence_S11 = torch.arange(S, device=chosen_ST.device)[:, None, None]
        all_SNNh[sequence_S11, there_Sn[:, :, None], there_Sn[:, None, :]] = other_Shnn.permute(0, 2, 3, 1)
        other_Shnn = all_SNNh.permute(0, 3, 1, 2)
    distance_SN = (other_Shnn - clean_hNN).abs().sum(dim=3).mean(dim=1) / 2
    return (distance_SN * kept_SN).sum(dim=1) / kept_SN.sum(dim=1)


def _margins(logits_SK: Tensor, top: int) -> Tensor:
    """[S]: the logit of a class minus the largest other one."""
    others_SK = logits_SK.clone()
    others_SK[:, top] = -torch.inf
    return logits_SK[:, top] - others_SK.amax(dim=1)


def _attentions(network: VisionTransformer | None) -> list[Attention]:
    """The attention of every block; empty if a block has another kind, whose attention is not known."""
    found = [] if network is None else [getattr(block, "attn", None) for block in network.blocks]
    return found if all(isinstance(each, Attention) for each in found) else []


def _cell_px(network: nn.Module, side: int) -> int:
    """Side of a token, or of the cells of a network without tokens."""
    tokens = getattr(getattr(network, "patch_embed", None), "num_patches", None)
    if isinstance(tokens, int) and side % (grid := math.isqrt(tokens)) == 0 and grid**2 == tokens:
        return side // grid
    return math.ceil(side / _CELLS)


def _measures(settings: Sensitivity, loader: Loader) -> SensitivityMeasures:
    job = loader.job
    return SensitivityMeasures(
        loader.network(),
        preprocess=job.preprocess,
        format=Format.of(job.model),
        settings=settings,
        device=loader.device,
    )


KIND = Kind(COLUMNS, needs_votes=False, measures=_measures)
