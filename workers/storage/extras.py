"""Libraries that only some stores need, and what to install if they are missing."""

import importlib
from types import ModuleType

from smoothcert.manifests.errors import RequestError


def load(module: str, url: str, extra: str) -> ModuleType:
    """Import a library.

    Args:
        module: its name.
        url: what it is to read.
        extra: of smoothcert, which installs it.
    Raises:
        RequestError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise RequestError(
            f"{url}: this needs {error.name}, which is not installed; run: pip install 'smoothcert[{extra}]'"
        ) from None
