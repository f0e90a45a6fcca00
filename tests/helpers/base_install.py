"""Runs smoothcert as if only its base were installed: python -m tests.helpers.base_install COMMAND...

Modules of packages that the base does not need, at any depth, cannot be imported.
"""

import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from importlib.abc import MetaPathFinder

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.house import HOUSE


def base_packages(also: Iterable[str] = ()) -> set[str]:
    """The packages that an installation without extras holds, and those that these need."""
    open_ones = [*tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]["dependencies"], *also]
    found: dict[str, set[str]] = {}
    while open_ones:
        requirement = Requirement(open_ones.pop())
        name = canonicalize_name(requirement.name)
        if name not in found or not requirement.extras <= found[name]:
            found[name] = found.get(name, set()) | requirement.extras
            open_ones += _required_by(name, found[name])
    return {*found}


def _required_by(name: str, extras: Iterable[str]) -> list[str]:
    texts = metadata.requires(name) or []
    markers = {text: Requirement(text).marker for text in texts}
    return [
        text
        for text, marker in markers.items()
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


class _Hidden(MetaPathFinder):
    """Finds no module of other packages than these."""

    def __init__(self, there: set[str]) -> None:
        owners = metadata.packages_distributions()
        self._hidden = {module for module, names in owners.items() if not {*map(canonicalize_name, names)} & there}

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        if name.partition(".")[0] in self._hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def hide_extras(also: Iterable[str] = ()) -> None:
    """From now on this process finds only the packages of the base, and those that these need."""
    sys.meta_path.insert(0, _Hidden(base_packages(also) | {"smoothcert"}))


if __name__ == "__main__":
    hide_extras()
    from smoothcert.pipeline.cli import app

    app()
