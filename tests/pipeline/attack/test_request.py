"""What the options of `smoothcert attack` mean, and which do not go together."""

from typing import Any

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.studies import NormAttack, PatchAttack
from smoothcert.pipeline.attack.request import Request, request_of
from smoothcert.pipeline.studies.selection import Choice, Only


def asked(**options: Any) -> Request:
    return request_of(**{"patch": None, "norm": None, "limit": None, "seed": 0} | options)


def test_a_patch_is_a_square_or_a_rectangle() -> None:
    assert asked(patch="4", eps=None, only=None) == Request(
        PatchAttack(height=4, width=4), Choice(None, 0, Only.uncertified)
    )
    assert asked(patch="2x6", limit=5, seed=3, only="all", losses=("dlr",), steps=0).settings == PatchAttack(
        height=2, width=6, losses=("dlr",), steps=0
    )


def test_a_norm_has_its_size() -> None:
    request = asked(norm="l2", eps="1/2", attack="pgd", steps=7)
    assert request == Request(NormAttack(norm="l2", eps=0.5, attack="pgd", steps=7), Choice(None, 0))
    assert "only" not in request.choice.as_json()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "name one of --patch SIDE"),
        ({"patch": "4", "norm": "linf", "eps": "1/255"}, "name one of --patch SIDE"),
        ({"norm": "linf"}, "--norm: needs --eps"),
        ({"norm": "linf", "eps": "much"}, "attack: eps: 'much' should be a number, or a fraction such as 4/255"),
        ({"norm": "linf", "eps": "0"}, "attack: eps: "),
        ({"norm": "linf", "eps": "8"}, "eps: 8 is more than any pixel can change; write 8/255, not 8"),
        ({"norm": "linf", "eps": "1e400"}, "should be a number, or a fraction such as 4/255"),
        ({"norm": "linf", "eps": "1/255", "attack": "fgsm", "steps": 3}, "--steps: --attack fgsm has none"),
        ({"norm": "linf", "eps": "1/255", "attack": "pgd", "queries": 3}, "--queries: --attack pgd has none"),
        ({"patch": "4", "places": 0, "random_places": 0}, "leave nothing to attack"),
        ({"patch": "4", "steps": 0, "queries": 0}, "leave no attack"),
        ({"norm": "linf", "eps": "1/255", "steps": 0}, "attack: steps: 0 should be greater than or equal to 1"),
        ({"norm": "linf", "eps": "1/255", "only": "all"}, "--only: goes with --patch; leave it out"),
        ({"norm": "linf", "eps": "1/255", "random_places": 1}, "--random-places: goes with --patch; leave it out"),
        ({"norm": "linf", "eps": "1/255", "losses": ("ce",)}, "--loss: goes with --patch; leave it out"),
        ({"patch": "4", "eps": "1/255"}, "--eps: goes with --norm; leave it out"),
        ({"patch": "4", "attack": "pgd"}, "--attack: goes with --norm; leave it out"),
        ({"patch": "2..4"}, "--patch 2..4: an attack has one size of patch; name one"),
        ({"patch": "wide"}, "wide"),
    ],
)
def test_a_wrong_request_is_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(RequestError) as caught:
        asked(**options)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
