"""A term of the loss that makes a network less sensitive to patches: a few tokens of the image are replaced by noise.

    loss = cross-entropy(f(x), y) + weight x mean over all blocks of MSE(h(x~), h(x))

x~ is the image x with a share of its tokens replaced by noise, uniform from 0 to 1 in normalised space; h are the
outputs of a block, for every token. x~ has no cross-entropy. Gradients flow through both h(x) and h(x~).

A small network, the occlusion model, gives each token a score: a convolution to one number per token, GELU, and a
linear layer over all tokens. The tokens with the lowest scores are replaced: those up to the quantile `share`. The
occlusion model learns to find the most sensitive tokens: it climbs the term that the network descends. The choice of
tokens has no gradient, so that of a token's visibility is taken for its score, limited to -1 to 1 for each image.

Of an ablation only tokens that it shows are replaced, and of these only visible pixels.

The term lowers a measured sensitivity. It is not a certificate.
Source: Guo, Stutz & Schiele 2023 (RSPC), arXiv:2303.10126, and github.com/guoyongcs/RSPC.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.training import PatchSensitivity, Training
from smoothcert.workers.training.augmentation import generators
from smoothcert.workers.training.losses import ForwardPass, Loss, Scored, Together, cross_entropy

# The authors' code trains the occlusion model so.
_LEARNING_RATE, _MOMENTUM, _WEIGHT_DECAY = 1e-4, 0.9, 0.05


class OcclusionModel(nn.Module):
    """Scores the tokens of images, [S, tokens]; those with the lowest scores are replaced.

    Args:
        channels: of the images.
        token_px: side of a token.
        tokens: of an image.
    """

    def __init__(self, channels: int, token_px: int, tokens: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, 1, token_px, stride=token_px, bias=False)
        self.score = nn.Linear(tokens, tokens, bias=False)

    def forward(self, inputs_SCHW: Tensor) -> Tensor:
        scores: Tensor = self.score(F.gelu(self.embed(inputs_SCHW)).flatten(1))
        return scores


class PatchSensitivityLoss(Loss):
    """The cross-entropy plus the term.

    Args:
        training: the training file.
        chosen: the section of the term.
        forward_pass: the network.
        device: of the network.
    Raises:
        RequestError: the network has no blocks, or no tokens of whole pixels.
    """

    def __init__(
        self, training: Training, chosen: PatchSensitivity, forward_pass: ForwardPass, device: torch.device
    ) -> None:
        self._training, self._chosen, self._pass = training, chosen, forward_pass
        self._token_px = _token_px_of(training, forward_pass.forward.network)
        preprocess = training.preprocess
        self._side = preprocess.network_side // self._token_px
        self._upsample = preprocess.upsample
        self.occlusion = OcclusionModel(preprocess.channels, self._token_px, self._side**2).to(device)
        self.trained = [*self.occlusion.parameters()]
        self._optimizer = torch.optim.SGD(
            self.trained, _LEARNING_RATE, momentum=_MOMENTUM, nesterov=True, weight_decay=_WEIGHT_DECAY
        )

    def __call__(self, together: Together, epochs: float) -> Scored:  # noqa: ARG002  other losses need it
        group, network = together.group, self._pass.forward.network
        inputs_SCHW = self._pass.forward.inputs(together.pixels, group)
        visible_S1HW = self._pass.forward.visible(group).float()
        visible_S1HW = F.interpolate(visible_S1HW, scale_factor=self._upsample, mode="nearest")
        with _outputs_of_blocks(network) as clean:
            logits_SK = self._pass.classify(inputs_SCHW, group)
        with _outputs_of_blocks(network) as noisy:
            self._pass.classify(self.replaced(inputs_SCHW, visible_S1HW, together.seeds), group)
        distances = [(one.float() - other.float()).square() for one, other in zip(noisy, clean, strict=True)]
        term = torch.stack([distance.flatten(1).mean(dim=1).sum() for distance in distances]).mean()
        loss = cross_entropy(self._training, logits_SK, together.targets) + self._chosen.weight * term
        return Scored(loss, logits_SK)

    def replaced(self, inputs_SCHW: Tensor, visible_S1HW: Tensor, seeds: Tensor) -> Tensor:
        """The inputs with noise in place of the tokens that the occlusion model chooses.

        Args:
            inputs_SCHW: of the network, normalised.
            visible_S1HW: 1 for each of their pixels that is shown.
            seeds: the random numbers of each image.
        """
        scores_ST = self.occlusion(inputs_SCHW)
        shown_ST = F.max_pool2d(visible_S1HW, self._token_px).flatten(1) > 0
        chosen_ST = lowest(scores_ST.detach(), shown_ST, self._chosen.share)
        kept_ST = (~chosen_ST).float() + (scores_ST - scores_ST.detach())  # the gradient goes straight to the scores
        if kept_ST.requires_grad:
            kept_ST.register_hook(F.hardtanh)
        kept_S1HW = F.interpolate(
            kept_ST.reshape(-1, 1, self._side, self._side), scale_factor=self._token_px, mode="nearest"
        )
        noise_SCHW = torch.empty_like(inputs_SCHW)
        for row, generator in zip(noise_SCHW, generators(seeds, inputs_SCHW.device), strict=True):
            row.uniform_(generator=generator)
        share_S1HW = (1 - kept_S1HW) * visible_S1HW
        return inputs_SCHW * (1 - share_S1HW) + noise_SCHW * share_S1HW

    def step(self) -> None:
        """Let the occlusion model climb, where the network descends."""
        for parameter in self.trained:
            if parameter.grad is not None:
                parameter.grad.neg_()
        self._optimizer.step()

    def state(self) -> dict[str, Any]:
        return {"model": self.occlusion.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.occlusion.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])


def lowest(scores_ST: Tensor, shown_ST: Tensor, share: float) -> Tensor:
    """[S, T] bool: of the n tokens that an image shows, the floor((n - 1) x share) + 1 with the lowest scores."""
    numbers_S1 = ((shown_ST.sum(dim=1, keepdim=True) - 1) * share).floor() + 1
    order_ST = scores_ST.masked_fill(~shown_ST, torch.inf).argsort(dim=1, stable=True)
    return order_ST.argsort(dim=1) < numbers_S1


@contextmanager
def _outputs_of_blocks(network: Any) -> Iterator[list[Tensor]]:
    """Collect what each block puts out, in order."""
    outputs: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda _, __, output: outputs.append(output)) for block in network.blocks]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _token_px_of(training: Training, network: Any) -> int:
    """The side of the network's tokens."""
    size = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    height, width = size if isinstance(size, tuple) else (size, size)
    side = training.preprocess.network_side
    if not hasattr(network, "blocks") or height is None or height != width or side % height:
        raise RequestError(
            f"regularisation.patch_sensitivity: {training.model.architecture} has no blocks over square tokens that "
            "divide the image; use a transformer such as vit_small_patch16_224, or set patch_sensitivity: null"
        )
    return int(height)
