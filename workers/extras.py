"""What an installation without an extra lacks, and the error that says how to get it."""

import importlib
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import ParamSpec, TypeVar

from smoothcert.manifests.errors import RequestError

CERTIFY_MODULES = frozenset({"huggingface_hub", "ray", "safetensors", "timm", "torch", "torchvision", "webdataset"})
"""What the extra `certify` installs besides the base."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


def lacks_extra(error: ModuleNotFoundError) -> RequestError | None:
    """The error about a module that `certify` installs; None for any other module."""
    return RequestError(_sentence(error, "certify")) if error.name in CERTIFY_MODULES else None


def load(module: str, wanted_for: str, extra: str) -> ModuleType:
    """Import a library that few users need.

    Args:
        module: its name.
        wanted_for: the URL that it is to read, or what else needs it; the error begins with it.
        extra: of smoothcert, which installs it.
    Raises:
        RequestError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise RequestError(f"{wanted_for}: {_sentence(error, extra)}") from None


def _sentence(error: ModuleNotFoundError, extra: str) -> str:
    return f"this needs {error.name}, which is not installed; run: pip install 'smoothcert[{extra}]'"


def needs_certify(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """A function that says how to get `certify` where it needs it."""

    @wraps(function)
    def wrapper(*args: _P.args, **options: _P.kwargs) -> _T:
        try:
            return function(*args, **options)
        except ModuleNotFoundError as error:
            if (lacking := lacks_extra(error)) is None:
                raise
            raise lacking from None

    return wrapper
