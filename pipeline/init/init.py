"""From MODEL and DATA to a job file that `smoothcert plan` accepts.

Not covered: looking at the network (network.py) and at the images (images.py).
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from smoothcert.manifests.ablation import ablation_in_words
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Images, Job, storage_of
from smoothcert.manifests.names import without_secrets
from smoothcert.manifests.yaml_file import content_of
from smoothcert.pipeline.init.images import Labels, Looked, labels_of, look_at
from smoothcert.pipeline.init.job_file import text_of
from smoothcert.pipeline.init.network import Described, describe
from smoothcert.workers.networks.described_jobs import load_job
from smoothcert.workers.storage.output_file import OutputFile
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.storage.temporary import temporary_folder

_HEAD = (
    "Written by `smoothcert init`. Check what the comments say, then run `smoothcert plan {name}`. "
    "docs/reference/job.md explains every key."
)
_SHARES = (0.01, 0.02, 0.03)  # of the image's area; the patches that papers report


class Written(NamedTuple):
    """A job file that was written.

    Attributes:
        path: of the file.
        summary: a line about the job.
        notices: what the user must do or know, a line each.
    """

    path: Path
    summary: str
    notices: list[str]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"path": str(self.path), "summary": self.summary, "notices": self.notices}


def init(model: str, data: str, output: Path, overrides: Sequence[str]) -> Written:
    """Write a job file.

    Args:
        model: weights that timm knows, a name of the hub, a folder with config.json, or a file of weights.
        data: what `images.shards` may be.
        output: the file, which must not exist.
        overrides: `key.path=value` each; they win over what is found.
    Raises:
        RequestError: network or images do not say enough of themselves, or the file exists.
    """
    file = OutputFile(str(output), "--output")
    file.check()
    written = content_of(Job, overrides)
    store = AnyStore(storage_of([one.removeprefix("storage.") for one in overrides if one.startswith("storage.")]))
    looked = look_at(data, store)
    network = describe(model, written, store)
    labels = labels_of(looked, network.classes, network.class_names)
    content, comments = _job_of(network, looked, labels, written)
    job = _checked(content)
    folder = output.absolute().parent
    for section, key in (("images", "shards"), ("model", "checkpoint")):
        content[section][key] = _from(folder, content[section][key])
    with file.opened() as opened:
        opened.write(text_of(content, comments, _HEAD.format(name=output)).encode())
    ablation = job.ablation
    return Written(
        output,
        f"{network.name} on {looked.tars:,} {'tar' if looked.tars == 1 else 'tars'} in {without_secrets(data)}: "
        f"{ablation_in_words(ablation)}, of {job.preprocess.crop} pixels",
        [*looked.notices, *filter(None, [labels.notice, _about_training(network)]), *network.notices],
    )


def _checked(content: dict[str, Any]) -> Job:
    """The job of this content, as the commands read it."""
    with temporary_folder() as folder:
        file = folder / "job.yaml"
        file.write_text(text_of(content, {}, "For a check."), encoding="utf-8")
        try:
            return load_job(file)
        except RequestError as error:
            raise RequestError(str(error).replace(f"{file}: ", "")) from None


def column_of(crop: int) -> int:
    """Width of the columns for images of this side: 4 of 32 and 19 of 224 pixels, and what lies between.

    These are the widths of Salman et al. (CVPR 2022, arXiv 2110.07719) for CIFAR-10 and ImageNet.
    """
    return max(1, round(4 + (crop - 32) * (19 - 4) / (224 - 32)))


def _job_of(
    network: Described, looked: Looked, labels: Labels, written: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The content of the job file, and its comments by key path; what the user wrote needs no comment."""
    of_user = written.get("preprocess", {})
    changed = {"resize", "crop", "upsample"} & of_user.keys()
    preprocess, about_pixels = _pixels_of(network, None if changed else looked.side)
    preprocess = preprocess | of_user
    crop = preprocess.get("crop", network.side)  # a transformers network has its own
    ablation = network.ablation or {"kind": "column", "size": column_of(crop)}
    if "kind" in written.get("ablation", {}):
        ablation = {}  # the rest belongs to another kind
    default_suffixes = Images.model_fields["image"].default
    images: dict[str, Any] = {"shards": looked.shards}
    if not {*looked.suffixes} <= {*default_suffixes}:
        images["image"] = [*looked.suffixes]
    content = {
        "name": f"{network.name} on {looked.name}",
        "images": images | labels.keys,
        "model": network.model,
        **({"preprocess": preprocess} if preprocess else {}),
        "ablation": ablation,
        "patches": sorted({math.ceil(math.sqrt(share) * crop) for share in _SHARES}),
        "output": "runs",
    }
    about_pixels = " ".join(filter(None, [network.comments.get("preprocess"), about_pixels]))
    comments = network.comments | {
        "images.label": labels.comment,
        "model": " ".join(filter(None, [network.trained, network.comments.get("model")])),
        "ablation": _about_ablation(network, crop),
        "patches": "Squares that cover 1, 2 and 3 % of the image; `smoothcert query` answers any other patch later.",
        "output": "A folder or s3://BUCKET/FOLDER.",
    }
    comments |= {"preprocess": about_pixels} if about_pixels else {}
    for key, value in written.items():
        content[key] = content[key] | value if isinstance(content.get(key), dict) else value
        if key not in ("images", "model"):
            comments.pop(key, None)
    return content, comments


def _pixels_of(network: Described, side: int | None) -> tuple[dict[str, Any], str | None]:
    """`preprocess` for images that are all squares of one side, or for any images; and a comment if it was changed."""
    preprocess = network.preprocess
    if side is None or network.ablation is not None or side > network.side or network.side % side:
        return preprocess, None
    if side == network.side:
        return preprocess | {"resize": None, "crop": side}, f"The images have {side} x {side} pixels already."
    factor = network.side // side
    return (
        preprocess | {"resize": None, "crop": side, "upsample": factor},
        f"The images have {side} x {side} pixels: ablations and patches are in these; the network sees each pixel "
        f"{factor} x {factor} times.",
    )


def _about_ablation(network: Described, crop: int) -> str:
    if network.ablation is not None:
        return "As in the training of the weights."
    return (
        f"All {crop} columns of this width: the proportion of Salman et al. (arXiv 2110.07719). stride: N votes on "
        "every Nth only, which is N times faster and certifies fewer images."
    )


def _about_training(network: Described) -> str | None:
    return None if network.ablation is not None else network.trained


def _from(folder: Path, path: Any) -> Any:
    """A path below the job file's folder as seen from there; any other, every URL and a list of the user's as it is."""
    return os.path.relpath(path, folder) if isinstance(path, str) and Path(path).is_relative_to(folder) else path
