"""What is known of the votes of some images: all that certificates are computed from."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.signedinteger[Any]] | NDArray[np.unsignedinteger[Any]]
Floats = NDArray[np.float32]


class Cast(NamedTuple):
    """The votes of some images, and what belongs to them.

    Attributes:
        votes: [images, ablations], the class of each vote, in the order of ablations; -1 where none was cast.
        margins: [images, ablations], top logit minus second, NaN where no vote was cast; None if unknown.
        labels: [images], -1 for images without a usable label; None if there are none.
        clean: [images], the class of each whole image; None if unknown.
        clean_margins: [images], likewise.
    """

    votes: Ints
    margins: Floats | None = None
    labels: Ints | None = None
    clean: Ints | None = None
    clean_margins: Floats | None = None

    def by(self, ablations: Ints) -> "Cast":
        """The votes of some ablations alone, by their positions."""
        margins = None if self.margins is None else self.margins[:, ablations]
        return self._replace(votes=self.votes[:, ablations], margins=margins)
