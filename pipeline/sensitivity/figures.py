"""Figures of a study of sensitivity: means over its images.

Not covered: what is measured of an image (workers/studies/sensitivity.py).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from smoothcert.pipeline.statistics import Mean, mean_of

WAYS = ("occluded", "corrupted", "hidden")
"""How tokens change, as the columns have it."""


@dataclass(frozen=True)
class WayFigures:
    """One way of changing tokens.

    Attributes:
        changed: share of draws in which the prediction changes.
        margin_change: clean margin minus perturbed margin.
        drift: of attention at each layer; None if the network's attention is not known.
    """

    changed: Mean
    margin_change: Mean
    drift: tuple[Mean, ...] | None


@dataclass(frozen=True)
class SensitivityFigures:
    """The whole study.

    Attributes:
        images: how many were measured.
        not_measured: images with an error.
        ways: figures by way; empty if no image was measured.
        tokens: [rows, columns], mean change of the margin if this token alone is occluded; None if not asked for.
    """

    images: int
    not_measured: int
    ways: Mapping[str, WayFigures]
    tokens: NDArray[np.float64] | None


def figures_of(rows: pa.Table | None) -> SensitivityFigures:
    """Average the rows of a study; None: there are none yet."""
    if rows is None:
        return SensitivityFigures(0, 0, {}, None)
    measured = rows.filter(rows["error"].is_null())
    if not len(measured):
        return SensitivityFigures(0, len(rows), {}, None)
    ways = {}
    for way in WAYS:
        drift = _matrix(measured[f"{way}_drift"])
        ways[way] = WayFigures(
            mean_of(measured[f"{way}_changed"].to_numpy().astype(np.float64)),
            mean_of(measured[f"{way}_margin_change"].to_numpy().astype(np.float64)),
            None if drift is None else tuple(mean_of(layer) for layer in drift.T),
        )
    tokens = _matrix(measured["tokens"])
    side = 0 if tokens is None else math.isqrt(tokens.shape[1])
    grid = None if tokens is None else tokens.mean(axis=0).reshape(side, side)
    return SensitivityFigures(len(measured), len(rows) - len(measured), ways, grid)


def _matrix(lists: pa.ChunkedArray) -> NDArray[np.float64] | None:
    """Lists of equal length as [images, length]; None if there are none."""
    if lists.null_count:
        return None
    return np.array(lists.to_pylist(), np.float64)
