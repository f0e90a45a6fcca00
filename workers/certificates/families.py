"""Rule families: what a kind of ablation stores of each image, and which questions its votes answer.

A kind of ablation belongs to one family. A new family needs a module with its rules and its stored columns, and an
entry in the table below.

    majority   columns, rows and blocks: the class with the most votes (majority.py, rules.py)
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

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


@dataclass(frozen=True)
class RuleFamily:
    """Rules that share their votes.

    Attributes:
        columns: names of the columns that are stored of each image beside votes and margins; int32 each.
        certify: votes to these columns.
        rules: the questions that a query can ask; the first is asked unless another is named.
    """

    columns: tuple[str, ...]
    certify: Certify
    rules: Mapping[str, Rule]


MAJORITY = RuleFamily(
    columns=tuple(field.name for field in fields(majority.Certificates)),
    certify=majority.certify,
    rules={RuleName.exact: exact_rule, RuleName.margin: margin_rule},
)

_FAMILIES = {"column": MAJORITY, "row": MAJORITY, "block": MAJORITY}


def family_of(ablation: Ablation) -> RuleFamily:
    """The family of a job's ablation."""
    return _FAMILIES[ablation.kind]
