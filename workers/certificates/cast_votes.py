"""Certificates of votes that any network cast: an array of votes and the geometry of their ablations in.

    found = certify_votes(votes, {"kind": "column", "size": 4}, crop=32, classes=10)
    found.prediction, found.max_certified_patch
    answer = query_votes(votes, {"kind": "column", "size": 4}, crop=32, classes=10, patch=(4, 8))
    answer.certified, answer.slack

Votes are in the order of offsets: from left to right, from top to bottom, row by row for blocks.

Not covered: the rules (rules.py); the votes of a run (pipeline/query/).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smoothcert.manifests.ablation import Ablation, ablation_of
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.names import one_line
from smoothcert.manifests.rules import Certificate, Claim, RuleName
from smoothcert.workers.ablations.kinds import Ablations, ablations_of
from smoothcert.workers.ablations.threats import Patch, Threat, rectangle
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.certificates.majority import Certificates
from smoothcert.workers.certificates.rules import Answer

_MAX_CLASSES = 1 << 16


def certify_votes(votes: ArrayLike, ablation: Ablation | Mapping[str, Any], *, crop: int, classes: int) -> Certificates:
    """Count votes and find the largest certified squares: the columns of a run, [images] each.

    Args:
        votes: [images, ablations], the class of each vote, from 0.
        ablation: its keys, as in a job file.
        crop: side of the image that was ablated, in pixels.
        classes: of the network, those without votes included.
    Raises:
        RequestError: the votes are not those of such ablations and classes.
    """
    known, ablations = _geometry(ablation, crop)
    cast = Cast(_checked(votes, ablations, classes))
    found: Certificates = family_of(known).certify(cast, ablations, classes=classes)
    return found


def query_votes(
    votes: ArrayLike,
    ablation: Ablation | Mapping[str, Any],
    *,
    crop: int,
    classes: int,
    patch: Patch,
    patches: int = 1,
    rule: str = "exact",
) -> Answer:
    """Decide for each image whether patches can change its prediction.

    Args:
        votes, ablation, crop, classes: as for `certify_votes`.
        patch: side of a square, or height and width, in pixels.
        patches: how many of them at once.
        rule: `exact`, `margin`, or of masks `published`.
    Raises:
        RequestError: as for `certify_votes`; the patch does not fit the image; there is no such rule.
    """
    known, ablations = _geometry(ablation, crop)
    family = family_of(known)
    rules = family.rules[Certificate.recovery]
    if rule not in rules:
        raise RequestError(f"rule: {rule!r} is unknown; use {' or '.join(rules)}")
    ballots = family.ballots(Cast(_checked(votes, ablations, classes)), ablations, classes=classes)
    threat = Threat(*rectangle(patch), _whole_number("patches", patches, least=1))
    return family.rule(Claim(rule=RuleName(rule)))(ballots, ablations, threat)


def _geometry(ablation: Ablation | Mapping[str, Any], crop: int) -> tuple[Ablation, Ablations]:
    known = ablation_of(ablation)
    _whole_number("crop", crop, least=1)
    return known, ablations_of(known, crop, crop)


def _whole_number(name: str, value: Any, *, least: int) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise RequestError(f"{name}: {value!r} must be a whole number from {least} on")
    return int(value)


def _checked(votes: ArrayLike, ablations: Ablations, classes: int) -> NDArray[np.int64]:
    """The votes, if they are one class for each ablation of each image."""
    if _whole_number("classes", classes, least=2) > _MAX_CLASSES:
        raise RequestError(f"classes: {classes:,} are too many; at most {_MAX_CLASSES:,}")
    try:
        array = np.asarray(votes)
    except (TypeError, ValueError) as error:  # rows of different lengths, a tensor on a GPU
        raise RequestError(f"votes: cannot be read as an array ({one_line(error)}); give [images, ablations]") from None
    shape = list(array.shape)
    if array.dtype.kind not in "iu":
        logits = "; of logits [images, ablations, classes] take the argmax" if array.ndim == 3 else ""
        raise RequestError(f"votes: an array of {array.dtype}, shape {shape}, is not one of whole numbers{logits}")
    if array.ndim != 2 or array.shape[1] != ablations.num_ablations:
        raise RequestError(
            f"votes: shape {shape} is not [images, {ablations.num_ablations}]; such ablations of "
            f"{ablations.height} x {ablations.width} pixels are {ablations.num_ablations}, in the order of offsets"
        )
    if (wrong := np.argwhere((array < 0) | (array >= classes))).size:
        image, place = wrong[0]
        absent = (
            "; leave images without votes (-1) out, and ask runs with early_exit by `query`"
            if array[image, place] == -1
            else ""
        )
        raise RequestError(
            f"votes: vote {place} of image {image} is {array[image, place]}, and classes are 0 to {classes - 1}{absent}"
        )
    return array.astype(np.int64)
