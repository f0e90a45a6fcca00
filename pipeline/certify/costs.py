"""What a job costs: an estimate of tokens, matrix products, hours and bytes before anything runs.

It loads and checks the network as an actor does, so a checkpoint that does not fit is found here. It computes no vote.
A product of an n x a by an a x b matrix counts 2 n a b operations.
"""

import copy
from typing import Any, NamedTuple

import torch
from rich.table import Table
from timm.models import VisionTransformer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from smoothcert.manifests.errors import RunError
from smoothcert.manifests.job import Job
from smoothcert.pipeline.certify.image_counts import expect
from smoothcert.pipeline.certify.plan import Plan, make_plan
from smoothcert.pipeline.console.looks import facts, flop_text, plain, span
from smoothcert.pipeline.overview.notices import left_out_notices
from smoothcert.pipeline.overview.runs_list import run_as_json
from smoothcert.pipeline.overview.status import FailedShard
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.shown import Shown
from smoothcert.workers.ablations.tokens import token_groups
from smoothcert.workers.networks.classifiers import has_tokens, load_classifier, preprocess_notice
from smoothcert.workers.tars.tar_headers import LeftOut
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.format_speeds import block_seconds
from smoothcert.workers.votes.machine import device_here
from smoothcert.workers.votes.voters import smooth

_BYTES_A_VOTE = 6  # uint16 and float32, little of which compresses
_BYTES_A_ROW = 60  # the other columns, compressed
_WORTH_SAYING = 1.1  # times as fast; less is within the noise


class Costs(NamedTuple):
    """What `smoothcert plan` prints.

    Attributes:
        plan: shards, checkpoint, and the run that is there or would be.
        num_ablations: of an image.
        tokens_per_image: None for a network without tokens.
        flop_per_image: operations; None if torch cannot count them.
        images: of the job; None if unknown.
        tflops: the speed that is assumed, in 10^12 operations a second.
        format_speeds: how many times as fast as the job's each number format is on this machine; None for a network
            without tokens, and where this machine cannot compute the job's format.
        notices: what else to know, a line each.
        failures: the shards that would fail.
    """

    plan: Plan
    num_ablations: int
    tokens_per_image: int | None
    flop_per_image: int | None
    images: int | None
    tflops: float
    format_speeds: dict[str, float] | None
    notices: list[str]
    failures: list[FailedShard]

    @property
    def forward_passes_per_image(self) -> int:
        """One for each ablation, and one for the whole image if the job asks for it; early exit leaves some out."""
        return self.num_ablations + self.plan.job.clean

    @property
    def forward_passes(self) -> int | None:
        """Of all images, those that are done included."""
        return None if self.images is None else self.images * self.forward_passes_per_image

    @property
    def flop(self) -> int | None:
        """Operations of all images, those that are done included."""
        return None if self.images is None or self.flop_per_image is None else self.images * self.flop_per_image

    @property
    def seconds_left(self) -> float | None:
        """Of the shards that are still to do: their share of the bytes of all tars."""
        if self.flop is None:
            return None
        todo, all_bytes = (sum(task.shard.size for task in tasks) for tasks in (self.plan.todo, self.plan.tasks))
        return todo / max(1, all_bytes) * self.flop / 1e12 / self.tflops

    @property
    def bytes_out(self) -> int | None:
        """About how many bytes the files of votes have."""
        return None if self.images is None else self.images * (self.num_ablations * _BYTES_A_VOTE + _BYTES_A_ROW)

    @property
    def table(self) -> Table:
        """The figures for people."""
        return _table_of(self)

    def as_json(self) -> dict[str, Any]:
        """The figures as numbers; null where they are unknown."""
        plan = self.plan
        published = len(plan.tasks) - len(plan.todo)
        return {
            **run_as_json(plan.run, complete=not plan.todo and plan.run.success() is not None, published=published),
            "images": self.images,
            "index_classes": plan.packed_classes,
            "checkpoint_layout": plan.checkpoint_layout,
            "ablations_per_image": self.num_ablations,
            "forward_passes_per_image": self.forward_passes_per_image,
            "forward_passes": self.forward_passes,
            "tokens_per_image": self.tokens_per_image,
            "operations_per_image": self.flop_per_image,
            "operations": self.flop,
            "tflops": self.tflops,
            "format_speeds": self.format_speeds,
            "seconds_left": self.seconds_left,
            "bytes_out": self.bytes_out,
            "notices": self.notices,
            "failures": [failure._asdict() for failure in self.failures],
        }


def costs_of(job: Job, tflops: float, *, allow_code: bool = False) -> Costs:
    """Estimate what a job costs, and find the shards that would fail.

    Args:
        job: the job.
        tflops: speed to assume, in 10^12 operations a second.
        allow_code: whether code that the job names may run.
    Raises:
        RequestError: the job cannot be done, or its checkpoint does not fit its network.
    """
    return costs_of_plan(make_plan(job, allow_code=allow_code), tflops)


def costs_of_plan(plan: Plan, tflops: float) -> Costs:
    """As `costs_of`, of a job that is planned already."""
    job, crop = plan.job, plan.job.preprocess.crop
    with plan.run.store.local(job.model.checkpoint) as checkpoint:
        network = load_classifier(
            job.model, job.preprocess, checkpoint, plan.checkpoint_key, allow_code=plan.allow_code
        )
    ablations = ablations_of(job.ablation, crop, crop)
    work = _work_of(job, network, ablations)
    speeds = None if work.tokens is None else _format_speeds(job, network, work.tokens // ablations.num_ablations)
    _refuse_misfit(job, network, ablations)
    images = _count_images(plan)
    notices = [*plan.notices, *images.notices, *filter(None, [preprocess_notice(job)])]
    if work.tokens is not None and speeds is None:
        notices.append(f"model.dtype: this machine cannot compute {job.model.dtype}; the machines that vote must")
    return Costs(
        plan,
        num_ablations=ablations.num_ablations,
        tokens_per_image=work.tokens,
        flop_per_image=work.flop,
        images=images.total,
        tflops=tflops,
        format_speeds=speeds,
        notices=notices,
        failures=images.failures,
    )


def _table_of(costs: Costs) -> Table:
    plan, images, tokens, operations = costs.plan, costs.images, costs.tokens_per_image, costs.flop_per_image
    table = facts(plan.job.name)
    table.add_row("run id", plan.run.run_id)
    table.add_row("shards", f"{len(plan.tasks):,}")
    table.add_row("  still to do", f"{len(plan.todo):,}")
    table.add_row("images", "unknown" if images is None else f"{images:,}")
    if plan.packed_classes:
        table.add_row("classes by the index", f"{plan.packed_classes:,}")
    table.add_row("checkpoint", plain(plan.checkpoint_layout))
    table.add_row("ablations an image", f"{costs.num_ablations:,}")
    at_most = "at most " if plan.job.ablation.early_exit else ""
    if costs.forward_passes is not None:
        table.add_row("forward passes", f"{at_most}{costs.forward_passes:,}")
    if tokens is not None:
        table.add_row("tokens an ablation", f"{tokens / costs.num_ablations:.2f}")
        table.add_row("tokens an image", f"{tokens:,}")
    table.add_row("operations an image", "unknown" if operations is None else flop_text(operations))
    if costs.flop is not None and costs.seconds_left is not None:
        table.add_row("operations", flop_text(costs.flop))
        table.add_row(f"time left at {costs.tflops:g} TFLOP/s", span(costs.seconds_left))
    if costs.format_speeds is not None:
        table.add_row("fastest format here", _fastest_in_words(costs.format_speeds, plan.job.model.dtype))
    if costs.bytes_out is not None:
        table.add_row("bytes out, about", f"{costs.bytes_out:,}")
    return table


def _format_speeds(job: Job, network: Any, shown: int) -> dict[str, float] | None:
    seconds = block_seconds(network, shown + network.num_prefix_tokens, device_here())
    if job.model.dtype not in seconds:
        return None
    return {dtype: round(seconds[job.model.dtype] / each, 2) for dtype, each in seconds.items()}


def _fastest_in_words(speeds: dict[str, float], dtype: str) -> str:
    fastest = max(speeds, key=speeds.__getitem__)
    if speeds[fastest] < _WORTH_SAYING:
        return f"{dtype}, the job's"
    return f"{fastest}, {speeds[fastest]:.1f} times as fast as the job's {dtype}; its votes are another run"


def _refuse_misfit(job: Job, network: nn.Module, ablations: Shown) -> None:
    """Build the engine as an actor does, but in float32, which every machine has. The engine takes over the network."""
    smooth(network, ablations, preprocess=job.preprocess, format=Format.of(job.model), device=torch.device("cpu"))


class _ImageWork(NamedTuple):
    """The work for one image: tokens, None for a network without them; operations, None if torch cannot count them."""

    tokens: int | None
    flop: int | None


def _work_of(job: Job, network: nn.Module, ablations: Shown) -> _ImageWork:
    if not has_tokens(network):
        weightless = copy.deepcopy(network).to("meta")
        flop = dense_flop_of(weightless, job.preprocess.network_side, job.preprocess.channels)
        return _ImageWork(None, None if flop is None else (ablations.num_ablations + job.clean) * flop)
    token_px = network.patch_embed.patch_size[0]
    keep_hidden = job.model.masked_tokens == "keep"
    groups = token_groups(ablations.upsampled(job.preprocess.upsample), token_px, keep_hidden=keep_hidden)
    sequences = [(len(group.ablations), group.tokens.shape[1]) for group in groups]
    whole = [(1, (job.preprocess.network_side // token_px) ** 2)] if job.clean else []
    return _ImageWork(
        sum(count * shown for count, shown in sequences),
        sum(count * flop_of(network, shown) for count, shown in [*sequences, *whole]),
    )


def dense_flop_of(network: nn.Module, side: int, channels: int = 3) -> int | None:
    """Operations of the matrix products and convolutions of one image; None where torch cannot count them.

    Args:
        network: any classifier, on the meta device.
        side: of the image in pixels.
        channels: of the image.
    """
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), torch.device("meta"):
        try:
            network.eval()(torch.empty(1, channels, side, side))
        except (RuntimeError, TypeError, ValueError, AssertionError):
            return None  # some networks read values of their tensors; the meta device has none
    return int(counter.get_total_flops())


def flop_of(network: VisionTransformer, shown: int) -> int:
    """Operations of the matrix products of one ablation with `shown` tokens; all rows of the last block count.

    Args:
        network: any timm VisionTransformer; its weights are not read.
        shown: visible tokens.
    """
    length = shown + network.num_prefix_tokens
    weights = sum(layer.weight.numel() for layer in network.blocks.modules() if isinstance(layer, nn.Linear))
    attention = 4 * length**2 * sum(block.attn.attn_dim for block in network.blocks)
    embedding = 2 * network.patch_embed.proj.weight.numel() * shown
    return 2 * weights * length + attention + embedding + 2 * network.embed_dim * network.num_classes


class _Images(NamedTuple):
    """The images of a plan: how many, None if unknown; notices; and the shards that would fail."""

    total: int | None
    notices: list[str]
    failures: list[FailedShard]


def _count_images(plan: Plan) -> _Images:
    counts: list[int | None] = []
    failures = []
    left_out = LeftOut()
    for task in plan.tasks:
        try:
            expected = expect(task, plan)
            counts.append(expected.images)
            left_out += expected.left_out
        except RunError as error:  # the tar is bad, or its disk
            failures.append(FailedShard(task.shard.name, f"shard {task.shard.name}: {error}"))
    unknown = None in counts
    notices = (
        ["only the tars say how many images there are; an index file beside them would list the number"]
        if unknown
        else []
    )
    notices += left_out_notices(left_out)
    total = None if unknown or failures else sum(count for count in counts if count is not None)
    return _Images(total, notices, failures)
