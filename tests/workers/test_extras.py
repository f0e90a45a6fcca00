"""What lacks an extra says how to get it; what lacks anything else is a defect."""

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.extras import lacks_extra, load, needs_certify


@needs_certify
def use(name: str) -> str:
    """Fails as an import does."""
    if name != "numpy":
        raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])
    return name


@pytest.mark.parametrize("name", ["torch", "ray.data", "safetensors.torch"])
def test_a_module_of_the_extra_is_named_with_the_remedy(name: str) -> None:
    """One line, the same as a command prints."""
    says = f"this needs {name.partition('.')[0]}, which is not installed; run: pip install 'smoothcert\\[certify\\]'"
    with pytest.raises(RequestError, match=f"^{says}$"):
        use(name)


def test_other_modules_keep_their_error() -> None:
    """It is a defect, or a mistake in a user's own code."""
    with pytest.raises(ModuleNotFoundError, match="my_network"):
        use("my_network")
    assert lacks_extra(ModuleNotFoundError("no name")) is None


def test_the_function_is_the_same() -> None:
    """Its result, its name and its documentation."""
    assert use("numpy") == "numpy"
    assert (use.__name__, use.__doc__) == ("use", "Fails as an import does.")


def test_a_library_is_loaded_or_its_extra_is_named() -> None:
    """A module within a package, too."""
    assert load("urllib3.util", "https://h/a", "certify").parse_url("https://h/a").host == "h"
    with pytest.raises(RequestError) as found:
        load("no_such_library", "gs://b/a.tar?", "gcs")
    assert str(found.value) == (
        "gs://b/a.tar?: this needs no_such_library, which is not installed; run: pip install 'smoothcert[gcs]'"
    )
