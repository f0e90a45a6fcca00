"""Votes of masks without those that no certificate needs.

A mask counts for prediction and certificates only while its row is uniform: while all votes in which it is hidden show
its own class, that of the mask alone (certificates/double_masking.py). A vote belongs to the rows of all masks that it
hides. Once each of these rows holds a vote of another class, the vote changes nothing, whatever the patch.

Votes are cast row by row, so which ones are left out depends on the image alone, not on its batch.
"""

import torch
from torch import Tensor

from smoothcert.workers.ablations.masks import MaskSet
from smoothcert.workers.votes.smoothed import Smoothed, Votes


def needed_votes(model: Smoothed, images: Tensor, masks: MaskSet) -> Votes:
    """Vote on each mask alone, then on what is needed of each row.

    Args:
        model: votes on the ablations of `masks`.
        images: [images, height, width, channels] uint8.
        masks: the ablations.
    Returns:
        The classes are -1 and the margins NaN where no vote was cast.
    """
    unions = torch.from_numpy(masks.unions)
    wanted = torch.zeros(len(images), masks.num_ablations, dtype=torch.bool)
    wanted[:, : masks.num_masks] = True
    votes = model.some_votes(images, wanted)
    for row in unions:
        classes = votes.classes.cpu()
        needed = torch.zeros_like(wanted)
        needed[:, row] = _matters(classes, unions)[:, row]
        needed &= classes < 0
        if needed.any():
            more = model.some_votes(images, needed)
            here = needed.to(more.classes.device)
            votes = Votes(more.classes.where(here, votes.classes), more.margins.where(here, votes.margins))
    return votes


def _matters(classes_NA: Tensor, unions_MM: Tensor) -> Tensor:
    """[images, ablations]: whether a vote belongs to a row that is uniform so far."""
    rows_NMM, own_NM1 = classes_NA[:, unions_MM], classes_NA[:, : len(unions_MM), None]
    uniform_NM = ((rows_NMM == own_NM1) | (rows_NMM < 0)).all(dim=2)
    matters = torch.zeros_like(classes_NA, dtype=torch.bool)
    images = torch.arange(len(classes_NA))
    for mask, row in enumerate(unions_MM):
        matters[images[:, None], row] |= uniform_NM[:, mask, None]
    return matters
