"""Every kind has its family; what a family stores and answers is listed once."""

from typing import Any, get_args

import numpy as np
import pytest

from smoothcert.manifests.ablation import WindowAblation, ablation_of
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.rules import Claim, RuleName
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.double_masking import DOUBLE_MASKING
from smoothcert.workers.certificates.families import MAJORITY, family_of
from smoothcert.workers.certificates.family import RuleFamily
from smoothcert.workers.runs.votes_table import schema

_ABLATIONS = [
    *({"kind": kind, "size": 2} for kind in get_args(WindowAblation.model_fields["kind"].annotation)),
    {"kind": "mask", "threat": 1, "per_axis": 2},
]


@pytest.mark.parametrize("keys", _ABLATIONS, ids=lambda keys: keys["kind"])
def test_every_kind_of_the_job_file_has_a_family(keys: dict[str, Any]) -> None:
    """Its certificates are its columns, of one value an image, for the ablations of that kind; or they do not apply."""
    ablation = ablation_of(keys)
    family, ablations = family_of(ablation), ablations_of(ablation, 6, 5)
    votes = np.random.default_rng(0).integers(0, 3, (5, ablations.num_ablations))
    stored = vars(family.certify(Cast(votes), ablations, classes=3))
    assert tuple(stored) == family.columns
    assert {values.shape for values in stored.values() if values is not None} == {(5,)}


@pytest.mark.parametrize(
    ("family", "truths"),
    [(MAJORITY, []), (DOUBLE_MASKING, ["recovery_certified", "recovery_published", "detection_certified"])],
)
def test_the_table_holds_the_columns_of_the_family(family: RuleFamily, truths: list[str]) -> None:
    """In the family's order, as 32-bit numbers and truth values."""
    table = schema(4, family)
    names = [name for name in table.names if name in family.columns]
    assert tuple(names) == family.columns
    assert {name: str(table.field(name).type) for name in names} == dict.fromkeys(names, "int32") | dict.fromkeys(
        truths, "bool"
    )


@pytest.mark.parametrize("keys", _ABLATIONS, ids=lambda keys: keys["kind"])
def test_every_rule_that_a_family_names_is_there(keys: dict[str, Any]) -> None:
    """A name that a query accepts has a rule; the exact rule is asked unless another is named."""
    family = family_of(ablation_of(keys))
    for certificate, names in family.rules.items():
        assert names[0] == RuleName.exact
        rules = [family.rule(Claim(certificate, name)) for name in names]
        assert len(set(rules)) == len(names)


def test_every_rule_name_belongs_to_a_family() -> None:
    """There is no name without a rule."""
    families = [family_of(ablation_of(keys)) for keys in _ABLATIONS]
    named = {name for family in families for names in family.rules.values() for name in names}
    assert named == {*RuleName}


def test_masks_answer_for_all_that_they_were_made_for() -> None:
    """As their columns say; an area is many patches. Columns, rows and blocks are made for no patch."""
    ablation = ablation_of({"kind": "mask", "threat": {"pixels": 6}, "per_axis": 3})
    masks = ablations_of(ablation, 12, 12)
    random = np.random.default_rng(0)
    differs = random.random((80, masks.num_ablations)) < random.choice([0, 0.01, 0.02], (80, 1))
    cast = Cast(np.where(differs, random.integers(0, 3, differs.shape), 1))
    answer = DOUBLE_MASKING.answer_own_threat(DOUBLE_MASKING.ballots(cast, masks, classes=3), masks)
    stored = DOUBLE_MASKING.certify(cast, masks, classes=3).recovery_certified
    assert answer.certified.tolist() == stored.tolist()
    assert 0 < stored.sum() < 80
    columns = ablations_of(ablation_of({"kind": "column", "size": 2}), 6, 6)
    ballots = MAJORITY.ballots(Cast(np.zeros((1, 6), int)), columns, classes=2)
    with pytest.raises(RequestError, match="are made for no patch; name one"):
        MAJORITY.answer_own_threat(ballots, columns)
