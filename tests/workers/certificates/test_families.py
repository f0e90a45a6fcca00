"""Every kind has its family; what a family stores and answers is listed once."""

from typing import get_args

import numpy as np
import pytest

from smoothcert.manifests.ablation import WindowAblation, ablation_of
from smoothcert.manifests.rules import Claim, RuleName
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.families import MAJORITY, family_of
from smoothcert.workers.runs.votes_table import schema

_KINDS = get_args(WindowAblation.model_fields["kind"].annotation)


@pytest.mark.parametrize("kind", _KINDS)
def test_every_kind_of_the_job_file_has_a_family(kind: str) -> None:
    """Its certificates are its columns, of one number an image, for the ablations of that kind."""
    ablation = ablation_of({"kind": kind, "size": 2})
    family, ablations = family_of(ablation), ablations_of(ablation, 6, 4)
    votes = np.random.default_rng(0).integers(0, 3, (5, ablations.num_ablations))
    stored = vars(family.certify(Cast(votes), ablations, classes=3))
    assert tuple(stored) == family.columns
    assert {values.shape for values in stored.values()} == {(5,)}


def test_the_table_holds_the_columns_of_the_family() -> None:
    """In the family's order, as 32-bit numbers."""
    table = schema(4, MAJORITY)
    names = [name for name in table.names if name in MAJORITY.columns]
    assert tuple(names) == MAJORITY.columns
    assert {str(table.field(name).type) for name in names} == {"int32"}


@pytest.mark.parametrize("kind", _KINDS)
def test_every_rule_that_a_family_names_is_there(kind: str) -> None:
    """A name that a query accepts has a rule; the exact rule is asked unless another is named."""
    family = family_of(ablation_of({"kind": kind, "size": 2}))
    for certificate, names in family.rules.items():
        assert names[0] == RuleName.exact
        rules = [family.rule(Claim(certificate, name)) for name in names]
        assert len(set(rules)) == len(names)


def test_every_rule_name_belongs_to_a_family() -> None:
    """There is no name without a rule."""
    families = [family_of(ablation_of({"kind": kind, "size": 2})) for kind in _KINDS]
    named = {name for family in families for names in family.rules.values() for name in names}
    assert named == {*RuleName} - {RuleName.published}
