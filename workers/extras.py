"""The extra `certify`: what an installation without it lacks, and the error that says how to get it."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from smoothcert.manifests.errors import RequestError

CERTIFY_MODULES = frozenset({"huggingface_hub", "ray", "safetensors", "timm", "torch", "torchvision", "webdataset"})
"""What the extra installs besides the base."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


def lacks_extra(error: ModuleNotFoundError) -> RequestError | None:
    """The error about a module that the extra installs; None for any other module."""
    if error.name not in CERTIFY_MODULES:
        return None
    return RequestError(f"this needs {error.name}, which is not installed; run: pip install 'smoothcert[certify]'")


def needs_certify(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """A function that says how to get the extra where it needs it."""

    @wraps(function)
    def wrapper(*args: _P.args, **options: _P.kwargs) -> _T:
        try:
            return function(*args, **options)
        except ModuleNotFoundError as error:
            if (lacking := lacks_extra(error)) is None:
                raise
            raise lacking from None

    return wrapper
