"""The id of a study follows from what determines its rows, and from nothing else."""

import pytest
from pydantic import ValidationError

from smoothcert.manifests.studies import KINDS, Amplification, NormAttack, PatchAttack, Sensitivity

CHOICE = {"limit": 5, "seed": 0}
ALL = [PatchAttack(height=2, width=3), NormAttack(eps="4/255"), Sensitivity(), Amplification()]


def test_every_kind_is_found_by_its_name():
    assert {type(settings) for settings in ALL} == set(KINDS.values())
    assert all(KINDS[settings.kind] is type(settings) for settings in ALL)


@pytest.mark.parametrize("settings", ALL, ids=lambda one: one.kind)
def test_the_id_depends_on_run_settings_and_choice(settings):
    ids = {
        settings.id_for("run-1", CHOICE),
        settings.id_for("run-2", CHOICE),
        settings.id_for("run-1", CHOICE | {"seed": 1}),
        *(other.id_for("run-1", CHOICE) for other in ALL if other is not settings),
    }
    assert len(ids) == 3 + len(ALL) - 1
    assert settings.id_for("run-1", dict(reversed(CHOICE.items()))) in ids


def test_a_default_that_is_spelled_out_changes_nothing():
    """A fraction and its value are the same, too."""
    assert NormAttack(eps="1/4", steps=100).id_for("run", CHOICE) == NormAttack(eps=0.25).id_for("run", CHOICE)


@pytest.mark.parametrize(
    "wrong",
    [{"height": 0, "width": 2}, {"height": 2, "width": 2, "losses": ["mse"]}, {"height": 2, "width": 2, "steps": -1}],
)
def test_wrong_values_are_refused(wrong):
    with pytest.raises(ValidationError):
        PatchAttack.model_validate(wrong)
