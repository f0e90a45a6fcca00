"""Number formats that tests compute in."""

import pytest
from torch import nn

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.votes.int8_blocks import Int8Blocks


def require(dtype: str) -> None:
    """Skip a test of a format that this machine cannot compute, and say why."""
    if dtype == "int8":
        try:
            Int8Blocks(nn.Sequential())
        except RequestError as refusal:
            pytest.skip(str(refusal))
