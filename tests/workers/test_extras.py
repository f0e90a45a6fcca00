"""What lacks the extra `certify` says how to get it; what lacks anything else is a defect."""

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.extras import lacks_extra, needs_certify


@needs_certify
def load(name: str) -> str:
    """Fails as an import does."""
    if name != "numpy":
        raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])
    return name


@pytest.mark.parametrize("name", ["torch", "ray.data", "safetensors.torch"])
def test_a_module_of_the_extra_is_named_with_the_remedy(name: str) -> None:
    """One line, the same as a command prints."""
    says = f"this needs {name.partition('.')[0]}, which is not installed; run: pip install 'smoothcert\\[certify\\]'"
    with pytest.raises(RequestError, match=f"^{says}$"):
        load(name)


def test_other_modules_keep_their_error() -> None:
    """It is a defect, or a mistake in a user's own code."""
    with pytest.raises(ModuleNotFoundError, match="my_network"):
        load("my_network")
    assert lacks_extra(ModuleNotFoundError("no name")) is None


def test_the_function_is_the_same() -> None:
    """Its result, its name and its documentation."""
    assert load("numpy") == "numpy"
    assert (load.__name__, load.__doc__) == ("load", "Fails as an import does.")
