"""Figures of a study of amplification: each block over all images.

Not covered: what is measured of an image (workers/studies/amplification.py).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from smoothcert.pipeline.statistics import Mean, mean_of

BAND = (0.05, 0.95)
"""The share of images below the ends of the band."""


@dataclass(frozen=True)
class BlockFigures:
    """The largest singular value of a block's Jacobian.

    Attributes:
        mean: over the images.
        band: between which nine in ten images lie.
        largest: of all images.
        exact: whether all values are exact; else they are lower bounds.
    """

    mean: Mean
    band: tuple[float, float]
    largest: float
    exact: bool


@dataclass(frozen=True)
class AmplificationFigures:
    """The whole study.

    Attributes:
        images: how many were measured.
        not_measured: images with an error.
        blocks: in order; empty if no image was measured.
    """

    images: int
    not_measured: int
    blocks: tuple[BlockFigures, ...]


def figures_of(rows: pa.Table | None) -> AmplificationFigures:
    """Average the rows of a study; None: there are none yet."""
    if rows is None:
        return AmplificationFigures(0, 0, ())
    measured = rows.filter(rows["error"].is_null())
    if not len(measured):
        return AmplificationFigures(0, len(rows), ())
    values = np.array(measured["values"].to_pylist(), np.float64)
    exact = [all(of_block) for of_block in zip(*measured["exact"].to_pylist(), strict=True)]
    blocks = tuple(
        BlockFigures(
            mean_of(block),
            (float(np.quantile(block, BAND[0])), float(np.quantile(block, BAND[1]))),
            float(block.max()),
            known,
        )
        for block, known in zip(values.T, exact, strict=True)
    )
    return AmplificationFigures(len(measured), len(rows) - len(measured), blocks)
