"""The pixels that ablations show, as tensors on a device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from smoothcert.manifests.ablation import Fill
from smoothcert.workers.ablations.shown import Painted


class VisiblePixels:
    """Makes masks of ablations from the small tables of their kinds.

    The numbers of ablations run through all kinds: the first kind in the order of votes, then the next.

    Args:
        kinds: on images of one size.
        device: where the tables lie and the masks are made.

    Attributes:
        fill: what hidden pixels become; the same under all kinds that hide some.
    """

    def __init__(self, kinds: Sequence[Painted], device: torch.device) -> None:
        self._kinds = kinds
        fills = {kind.fill for kind in kinds if kind.num_ablations > 1} or {kinds[0].fill}  # the whole has any
        assert len(fills) == 1, fills
        self.fill: Fill = fills.pop()
        self._tables = [[torch.from_numpy(table).to(device) for table in kind.tables] for kind in kinds]

    @property
    def num_ablations(self) -> int:
        return sum(kind.num_ablations for kind in self._kinds)

    def of(self, ablations_S: Tensor) -> Tensor:
        """[S, height, width] bool: the pixels that ablations show; [S] int64 on the device."""
        masks_SHW, first = self._of_kind(0, ablations_S), self._kinds[0].num_ablations
        for number, kind in enumerate(self._kinds[1:], start=1):
            # Make the masks of both and take one: selecting some of S first would make a GPU wait.
            theirs_SHW = self._of_kind(number, ablations_S - first)
            masks_SHW = torch.where((ablations_S >= first)[:, None, None], theirs_SHW, masks_SHW)
            first += kind.num_ablations
        return masks_SHW

    def _of_kind(self, number: int, ablations_S: Tensor) -> Tensor:
        kind = self._kinds[number]
        return kind.visible(ablations_S.clamp(0, kind.num_ablations - 1), self._tables[number])
