"""How much each encoder block amplifies a small change of its input: the largest singular value of its Jacobian.

The Jacobian is that of the block's output with respect to its input, residual included, at the activations of one whole
image. Power iteration gives a lower bound on its largest singular value, and more iterations come closer. Blocks with
few numbers get the exact value, by the full Jacobian and its singular values.

A block is each of the network's `blocks`, as timm calls its encoder. CaiT and XCiT have further blocks after these,
which read the class token only; they are left out.

Images go through the network one by one, so no row depends on which images are measured together.
Source: Wang & Ruan 2022, arXiv:2208.00906.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.func import jacrev, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Preprocess
from smoothcert.manifests.studies import Amplification
from smoothcert.workers.runs.votes_table import column
from smoothcert.workers.studies.measures import Kind, Loader, Studied
from smoothcert.workers.studies.whole_images import normalised
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.refusals import one_line_if_refused
from smoothcert.workers.votes.smoothed import without_tf32

_ROWS_AT_ONCE = 64  # of a full Jacobian; bounds the memory

COLUMNS = pa.schema(
    [
        column(
            "values",
            pa.list_(pa.float32()),
            "Largest singular value of each block's Jacobian, or a lower bound on it.",
            nullable=True,
        ),
        column("exact", pa.list_(pa.bool_()), "Whether it is no bound, for each block.", nullable=True),
    ]
)

_Function = Callable[[Tensor], Tensor]


class AmplificationMeasures:
    """Measures images with one network.

    Args:
        network: any network with `blocks`, float32, in evaluation mode; its weights get no gradients.
        preprocess: of the job.
        format: of the network, for messages.
        settings: of the study.
        device: where to compute.
    Attributes:
        forwards: how many blocks were measured so far, which grows as long as there is progress.
    Raises:
        RequestError: the network has no blocks, or they cannot be differentiated.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        preprocess: Preprocess,
        format: Format,
        settings: Amplification,
        device: torch.device,
    ) -> None:
        without_tf32()
        blocks = getattr(network, "blocks", None)
        if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not len(blocks):
            raise RequestError(
                f"model: {format.name} has no encoder blocks to measure; use a transformer of timm with `blocks`, such "
                "as ViT, DeiT, CaiT or XCiT"
            )
        self._network = network.to(device).eval().requires_grad_(False)
        self._blocks = list(blocks)
        self._preprocess, self._settings, self._device, self._name = preprocess, settings, device, format.name
        self.forwards = 0
        black = torch.zeros(preprocess.crop, preprocess.crop, preprocess.channels, dtype=torch.uint8)
        with one_line_if_refused("or differentiate an image", format, preprocess.network_side):
            self._row(black, 0, Amplification(iterations=1, exact_below=0))

    def measure(self, images: Studied) -> list[dict[str, Any]]:
        """The columns of each image; `error` instead for an image with activations that are not finite."""
        return [self._row(image, seed, self._settings) for image, seed in zip(images.pixels, images.seeds, strict=True)]

    def _row(self, image_HWC: Tensor, seed: int, settings: Amplification) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(seed)
        found = []
        # Other forms of attention have no forward derivative.
        with sdpa_kernel(SDPBackend.MATH):
            for function, tokens in self._calls(normalised(image_HWC[None].to(self._device), self._preprocess)):
                start = torch.randn(tokens.shape, generator=generator).to(self._device)
                self.forwards += 1
                found.append(largest_singular_value(function, tokens, start, settings))
        values = [each.value for each in found]
        if not torch.tensor(values).isfinite().all():
            return {"error": "an activation is not finite"}
        return {"values": values, "exact": [each.exact for each in found]}

    def _calls(self, image_1CWW: Tensor) -> list[tuple[_Function, Tensor]]:
        """Each block as a function of its tokens, and these; whatever else the network gives it stays fixed."""
        calls: dict[int, tuple[_Function, Tensor]] = {}

        def note(number: int, block: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
            tokens, *more = inputs
            calls[number] = (lambda changed: block(changed, *more, **options)), tokens

        hooks = [
            block.register_forward_pre_hook(partial(note, number), with_kwargs=True)
            for number, block in enumerate(self._blocks)
        ]
        try:
            with torch.no_grad():
                self._network(image_1CWW)
        finally:
            for hook in hooks:
                hook.remove()
        if len(calls) < len(self._blocks):
            raise RequestError(
                f"model: {self._name} calls only {len(calls)} of its {len(self._blocks)} blocks; use another "
                "architecture"
            )
        return [calls[number] for number in range(len(self._blocks))]


class SingularValue(NamedTuple):
    """Attributes:
    value: the largest singular value, or a lower bound on it.
    exact: whether it is no bound.
    """

    value: float
    exact: bool


def largest_singular_value(
    function: _Function, tokens: Tensor, start: Tensor, settings: Amplification
) -> SingularValue:
    """The largest singular value of a function's Jacobian.

    Args:
        function: of tokens, differentiable both ways.
        tokens: where it is differentiated.
        start: of power iteration, of the same shape, not 0.
        settings: iterations, and up to which size the value is exact.
    """
    output, pull = vjp(function, tokens)[:2]
    if max(tokens.numel(), output.numel()) <= settings.exact_below:
        jacobian = jacrev(function, chunk_size=_ROWS_AT_ONCE)(tokens).reshape(output.numel(), tokens.numel())
        if not jacobian.isfinite().all():
            return SingularValue(float("nan"), exact=True)
        return SingularValue(float(torch.linalg.matrix_norm(jacobian, ord=2)), exact=True)
    value, direction = 0.0, start / start.norm()
    for _ in range(settings.iterations):
        with warnings.catch_warnings():  # torch's own code warns of torch.jit at the first call
            warnings.simplefilter("ignore", FutureWarning)
            moved = jvp(function, (tokens,), (direction,))[1]
        norm = float(moved.norm())
        if norm == 0:  # also of a function that does not depend on its input
            return SingularValue(0.0, exact=False)
        # The transpose has the same singular values, so this is a lower bound, too, and the better one.
        (direction,) = pull(moved / norm)
        value = float(direction.norm())
    return SingularValue(value, exact=False)


def _measures(settings: Amplification, loader: Loader) -> AmplificationMeasures:
    job = loader.job
    return AmplificationMeasures(
        loader.network(),
        preprocess=job.preprocess,
        format=Format.of(job.model),
        settings=settings,
        device=loader.device,
    )


KIND = Kind(COLUMNS, needs_votes=False, measures=_measures)
