"""Rule families: what a kind of ablation stores for each image, and which questions its votes answer.

A kind of ablation belongs to one family. A new family needs a module with its rules and its stored columns, and an
entry in the table below.

    majority   columns, rows and blocks: the class with the most votes (majority.py, rules.py)

The table of votes takes its columns from here (runs/votes_table.py).
"""

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.job import Ablation
from smoothcert.manifests.rules import RuleName
from smoothcert.workers.ablations.kinds import Ablations
from smoothcert.workers.certificates import majority
from smoothcert.workers.certificates.rules import Rule, exact_rule, margin_rule


class Certify(Protocol):
    """Compute what a family stores: an object whose attributes are the columns, [images] each."""

    def __call__(self, votes: NDArray[np.integer], ablations: Ablations, *, classes: int) -> Any: ...


class Record(Protocol):
    """A dataclass whose fields are columns of one image, int32 each."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


@dataclass(frozen=True)
class RuleFamily:
    """Rules that share their votes.

    Attributes:
        predicted: the columns that an image has before its votes.
        certified: the columns after its votes.
        certify: computes all these columns from votes.
        rules: the questions that a query can ask; the first is the default.
    """

    predicted: type[Record]
    certified: type[Record]
    certify: Certify
    rules: Mapping[str, Rule]

    @property
    def default_rule(self) -> Rule:
        """The first rule: the tight one, which the stored columns follow, too."""
        return next(iter(self.rules.values()))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(field.name for record in (self.predicted, self.certified) for field in fields(record))


MAJORITY = RuleFamily(
    predicted=majority.Prediction,
    certified=majority.LargestPatches,
    certify=majority.certify,
    rules={RuleName.exact: exact_rule, RuleName.margin: margin_rule},
)

_FAMILIES = {"column": MAJORITY, "row": MAJORITY, "block": MAJORITY}


def family_of(ablation: Ablation) -> RuleFamily:
    """The family of a job's ablation."""
    return _FAMILIES[ablation.kind]
