"""Errors of torch and timm become one line, but for memory that runs out."""

import pytest
import torch

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.refusals import one_line_if_refused

_FORMAT = Format("resnet18", 3, keep_hidden=True, dtype="float16")


@pytest.mark.parametrize("error", [RuntimeError, TypeError, AssertionError, KeyError])
def test_an_error_becomes_one_short_line(error: type[Exception]) -> None:
    """It names the network, the view, the size and the number format, and says what to correct."""
    with (
        pytest.raises(
            RequestError, match=r"^model: resnet18 cannot classify an image of 8 x 8 pixels in float16: "
        ) as e,
        one_line_if_refused("an image", _FORMAT, 8),
    ):
        raise error("shapes\n differ " * 100)
    assert "\n" not in str(e.value)
    assert "correct model.options" in str(e.value)
    assert len(str(e.value)) < 400


def test_memory_that_runs_out_stays_an_error_of_its_own() -> None:
    """Fewer images may fit."""
    with pytest.raises(torch.OutOfMemoryError), one_line_if_refused("an image", _FORMAT, 8):
        raise torch.OutOfMemoryError
