"""Names of classes from each kind of file."""

from pathlib import Path
from typing import Any

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Model
from smoothcert.pipeline.pages.class_names import class_names


def model(classes: int, **keys: Any) -> Model:
    return Model(architecture="a", checkpoint="c", classes=classes, **keys)


def test_the_jobs_names_are_used_if_no_others_are_named() -> None:
    """It may have none."""
    assert class_names(None, model(2, class_names=["cat", "dog"])) == ("cat", "dog")
    assert class_names(None, model(2)) == ()


@pytest.mark.parametrize("text", ["cat\ndog\n", "\ufeffcat\r\ndog", '["cat", "dog"]', '{"1": "dog", "0": "cat"}'])
def test_names_are_read_in_the_order_of_the_classes(text: str, tmp_path: Path) -> None:
    """A line each, or JSON."""
    (tmp_path / "names").write_text(text)
    assert class_names(str(tmp_path / "names"), model(2)) == ["cat", "dog"]


def test_imagenets_names_are_known() -> None:
    names = class_names("imagenet-1k", model(1000))
    assert (len(names), names[0], names[207]) == (1000, "tench", "golden retriever")


@pytest.mark.parametrize(
    ("text", "reason"),
    [("[", "Expecting value"), ('{"a": "cat"}', "'0'"), (b"\xff", "'utf-8'"), ("[" * 200_000, "maximum recursion")],
)
def test_a_file_that_holds_no_names_is_refused(text: str | bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "names"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(
        RequestError, match=rf"--names .*: cannot be used \({reason}.*; name a file with a name per line"
    ):
        class_names(str(path), model(2))
    with pytest.raises(RequestError, match="No such file or directory"):
        class_names(str(tmp_path / "gone"), model(2))


def test_names_of_other_classes_are_refused() -> None:
    """The names of ImageNet would be wrong for ten other classes."""
    with pytest.raises(RequestError, match=r"--names imagenet-1k: holds 1,000 names, but the network has 10 classes"):
        class_names("imagenet-1k", model(10))
