"""The error for a network that cannot classify the job's images."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.names import one_line
from smoothcert.workers.votes.format import Format

_ERROR_LENGTH = 160  # characters of torch's or timm's own text


@contextmanager
def one_line_if_refused(view: str, format: Format, side: int) -> Iterator[None]:
    """Turn an error of torch or timm into a RequestError of one line.

    Args:
        view: what the network classifies, such as `an image`.
        format: of the network.
        side: of the image, in pixels.
    Raises:
        torch.OutOfMemoryError: unchanged, because a smaller batch may fit.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, AssertionError, AttributeError, LookupError) as error:
        raise RequestError(
            f"model: {format.name} cannot classify {view} of {side} x {side} pixels in {format.dtype}: "
            f"{one_line(error, _ERROR_LENGTH)}; correct model.options, dtype, crop or upsample, or use "
            "another architecture"
        ) from None
