"""A rule family: what a kind of ablation stores for each image, and which claims its votes decide.

The families: families.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.rules import Certificate, Claim, RuleName
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.rules import Answer


class Record(Protocol):
    """A dataclass whose fields are columns of one image: whole numbers, or truth values. None is null."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


class Counted(Protocol):
    """Votes of images, counted once for all claims of a family."""

    @property
    def prediction(self) -> NDArray[np.int32]:
        """[images]: the class that the family predicts."""

    def __len__(self) -> int: ...
    def of_images(self, images: Any) -> Self:
        """The same for some of the images."""


Rule = Callable[[Any, Any, Threat], Answer]
"""Decides a claim. Takes the counted votes of the family, its ablations, and the patches."""


class RuleFamily(ABC):
    """Rules that share their votes.

    Attributes:
        predicted: the columns that an image has before its votes.
        certified: the columns after its votes.
        rules: the names of the rules by certificate; the first is the default.
    """

    predicted: ClassVar[type[Record]]
    certified: ClassVar[type[Record]]
    rules: ClassVar[Mapping[Certificate, tuple[RuleName, ...]]]

    @abstractmethod
    def ballots(
        self, cast: Cast, ablations: Any, *, classes: int, tolerance: float = 0.0, known: Any | None = None
    ) -> Any:
        """Count votes: `Counted`.

        Args:
            cast: the votes.
            ablations: the ablations that voted, of a kind of this family.
            classes: K, the number of classes, at least 2.
            tolerance: votes with smaller margins count as the attacker's.
            known: the same votes, counted with another tolerance: what does not depend on it is taken from there.
        Raises:
            ValueError: a vote is for no class.
        """

    @abstractmethod
    def certify(self, cast: Cast, ablations: Any, *, classes: int) -> Any:
        """What is stored: an object whose attributes are the columns, [images] each.

        Args:
            cast, ablations, classes: as for `ballots`.
        Raises:
            ValueError: there are not as many votes as ablations, or one is for no class.
        """

    @abstractmethod
    def rule(self, claim: Claim = Claim()) -> Rule:  # noqa: B008  frozen
        """The rule that decides a claim.

        Raises:
            RequestError: the votes of this family do not decide such claims.
        """

    def decide(self, claim: Claim, counted: Any, ablations: Any, threat: Threat) -> Answer:
        """The answer of `rule(claim)`, but of the slack only the sign is to be used, and no place.

        Args:
            claim: what is claimed.
            counted: from `ballots`.
            ablations: the ablations that voted.
            threat: the patches.
        Raises:
            RequestError: as for `rule`, and for patches for which the votes have no answer.
        """
        return self.rule(claim)(counted, ablations, threat)

    def is_bound(self, ablations: Any, threat: Threat) -> bool:  # noqa: ARG002
        """Whether answers about a threat are only bounds."""
        return False

    def answer_own_threat(self, counted: Any, ablations: Any, claim: Claim = Claim()) -> Answer:  # noqa: ARG002, B008
        """Decide a claim against all patches that the ablations were made for.

        Args:
            counted: from `ballots`.
            ablations: the ablations that voted.
            claim: what is claimed.
        Raises:
            RequestError: as for `rule`, or the ablations were made for no patch.
        """
        raise RequestError("columns, rows and blocks are made for no patch; name one")

    @abstractmethod
    def slack_everywhere(self, counted: Any, ablations: Any, height: int, width: int) -> NDArray[np.int64]:
        """[images, places]: the slack of the exact rule for recovery, for a patch at each place in row-major order.

        Args:
            counted: from `ballots`.
            ablations: the ablations that voted.
            height, width: of the patch, in pixels.
        """

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(field.name for record in (self.predicted, self.certified) for field in fields(record))
