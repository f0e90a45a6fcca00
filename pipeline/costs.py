"""What a job costs, reckoned before anything runs: tokens, matrix products, hours, bytes.

Loads the network as an actor would, so that what does not fit shows here, and computes no vote.
A product of an n x a by an a x b matrix counts 2 n a b operations.
"""

from typing import NamedTuple

import torch
from rich.table import Table
from timm.models import VisionTransformer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from manifests.errors import ShardError
from manifests.job import Job
from pipeline.plan import Plan, count_images, make_plan
from workers.classifiers import has_tokens, load_classifier, preprocess_notice
from workers.geometry import Geometry

_BYTES_A_VOTE = 6  # uint16 and float32, little of which compresses
_BYTES_A_ROW = 60  # the other columns, compressed


def plan_table(job: Job, tflops: float) -> tuple[Table, list[str], str]:
    """The table of `smoothcert plan`, notices, and the URL of the run.

    Args:
        job: the job.
        tflops: rate to reckon with, in 10^12 operations a second.
    Raises:
        RequestError: the job cannot be done, or its checkpoint does not fit its network.
    """
    plan = make_plan(job)
    crop = job.preprocess.crop
    with plan.run.store.local(job.model.checkpoint) as checkpoint:
        network = load_classifier(job.model, job.preprocess, checkpoint, plan.checkpoint_key).to("meta")
    geometry = Geometry.of(job.ablation, crop, crop)
    tokens, flop = _work_of(job, network, geometry)
    images, notices = _count_images(plan)
    todo = plan.todo

    table = Table(title=job.name, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("run id", plan.run.run_id)
    table.add_row("shards", f"{len(plan.tasks):,}")
    table.add_row("  still to do", f"{len(todo):,}")
    table.add_row("images", "unknown" if images is None else f"{images:,}")
    table.add_row("checkpoint", plan.checkpoint_layout)
    table.add_row("ablations an image", f"{geometry.num_ablations:,}")
    if tokens is not None:
        table.add_row("tokens an ablation", f"{tokens / geometry.num_ablations:.2f}")
        table.add_row("tokens an image", f"{tokens:,}")
    table.add_row("TFLOP an image", "unknown" if flop is None else f"{flop / 1e12:.4f}")
    if images is not None:
        share = sum(task.shard.size for task in todo) / max(1, sum(task.shard.size for task in plan.tasks))
        if flop is not None:
            table.add_row("TFLOP", f"{images * flop / 1e12:,.1f}")
            table.add_row(f"hours left at {tflops:g} TFLOP/s", f"{share * images * flop / 1e12 / tflops / 3600:,.3f}")
        table.add_row("bytes out, about", f"{images * (geometry.num_ablations * _BYTES_A_VOTE + _BYTES_A_ROW):,}")
    if notice := preprocess_notice(job):
        notices.append(notice)
    return table, [*plan.notices, *notices], plan.run.url


class _Work(NamedTuple):
    """Of one image; tokens are None where none are dropped, operations where they cannot be counted."""

    tokens: int | None
    flop: int | None


def _work_of(job: Job, network: nn.Module, geometry: Geometry) -> _Work:
    if not has_tokens(network):
        flop = dense_flop_of(network, job.preprocess.network_side)
        return _Work(None, None if flop is None else (geometry.num_ablations + job.clean) * flop)
    token_px = network.patch_embed.patch_size[0]
    keep_hidden = job.model.masked_tokens == "keep"
    groups = geometry.upsampled(job.preprocess.upsample).token_groups(token_px, keep_hidden=keep_hidden)
    sequences = [(len(group.ablations), group.tokens.shape[1]) for group in groups]
    whole = [(1, (job.preprocess.network_side // token_px) ** 2)] if job.clean else []
    return _Work(
        sum(count * shown for count, shown in sequences),
        sum(count * flop_of(network, shown) for count, shown in [*sequences, *whole]),
    )


def dense_flop_of(network: nn.Module, side: int) -> int | None:
    """Operations of the matrix products and convolutions of one image; None where torch cannot count them.

    Args:
        network: any classifier, on the meta device.
        side: of the image in pixels.
    """
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), torch.device("meta"):
        try:
            network.eval()(torch.empty(1, 3, side, side))
        except (RuntimeError, TypeError, ValueError, AssertionError):
            return None  # some look at their numbers, of which the meta device has none
    return int(counter.get_total_flops())


def flop_of(network: VisionTransformer, shown: int) -> int:
    """Operations of the matrix products of one ablation that shows so many tokens; all rows of the last block count.

    Args:
        network: any timm VisionTransformer; its weights are not read.
        shown: visible tokens.
    """
    length = shown + network.num_prefix_tokens
    weights = sum(layer.weight.numel() for layer in network.blocks.modules() if isinstance(layer, nn.Linear))
    attention = 4 * length**2 * sum(block.attn.attn_dim for block in network.blocks)
    embedding = 2 * network.patch_embed.proj.weight.numel() * shown
    return 2 * weights * length + attention + embedding + 2 * network.embed_dim * network.num_classes


def _count_images(plan: Plan) -> tuple[int | None, list[str]]:
    total = 0
    for task in plan.tasks:
        try:
            count = count_images(task, plan)
        except ShardError as error:
            return None, [f"shard {task.shard.name}: {error}"]
        if count is None:
            return None, ["the number of images is in the tars alone; an index file beside them would tell it"]
        total += count
    return total, []
