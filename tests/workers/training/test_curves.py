"""The figures of a training: as a line for people, as JSON, and as a picture."""

import json
import sys

import pytest

from smoothcert.workers.training.curves import Figures, picture_of

PLAIN = Figures(epoch=1, lr=0.05, train_loss=2.5, train_accuracy=None, images=100, left_out=0, seconds=2.0)
FULL = Figures(2, 0.01, 1.25, 0.5, 100, 3, 4.0, 0.25, 0.75, {"2": 0.5, "4": 0.125})


def test_figures_on_one_line() -> None:
    """What was not measured is left out."""
    assert PLAIN.line(9) == "[1/9] loss 2.500, lr 0.05, 50 images/s"
    assert FULL.line(9) == (
        "[2/9] loss 1.250, train 50.0%, ablations 25.0%, smoothed 75.0%, 2 x 2 50.0%, 4 x 4 12.5%, lr 0.01, "
        "25 images/s, 3 left out"
    )


@pytest.mark.parametrize("figures", [PLAIN, FULL])
def test_figures_survive_their_json(figures: Figures) -> None:
    """A line of curve.jsonl gives the same figures again."""
    assert Figures(**json.loads(json.dumps(figures.as_json()))) == figures


@pytest.mark.parametrize("curve", [[PLAIN], [PLAIN, FULL], [PLAIN] * 30])
def test_the_picture_is_a_png(curve: list[Figures]) -> None:
    """The same figures give the same bytes."""
    pytest.importorskip("matplotlib")
    picture = picture_of(curve, "small")
    assert picture is not None
    assert picture.startswith(b"\x89PNG")
    assert picture_of(curve, "small") == picture
    assert picture_of(curve, "other") != picture


def test_there_is_no_picture_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra: the training goes on without it."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert picture_of([PLAIN], "small") is None
