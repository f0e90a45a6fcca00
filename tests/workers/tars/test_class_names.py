"""Names of classes come from a file in any usual form, or are those of ImageNet."""

from pathlib import Path

import pytest
from timm.data import ImageNetInfo

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.storage.folder_store import FolderStore
from smoothcert.workers.tars.class_names import class_names, in_words, with_label_names
from tests.helpers.tars import images_field


@pytest.mark.parametrize(
    "text",
    [
        "cat\nowl, great\n",
        "\ufeffcat\r\nowl, great \r\n\r\n",
        '["cat", "owl, great"]',
        '{"1": "owl, great", "0": "cat"}',
    ],
)
def test_forms(tmp_path: Path, text: str) -> None:
    """Lines, a JSON list, a JSON object; also through a store."""
    (tmp_path / "names").write_text(text, newline="")
    source = str(tmp_path / "names")
    assert class_names(source, "--classes") == class_names(source, "--classes", FolderStore()) == ("cat", "owl, great")
    assert in_words(("cat", "owl, great")) == ("cat", "owl, great")


def test_imagenet() -> None:
    """Oracle: timm's own table."""
    info = ImageNetInfo()
    ids = class_names("imagenet-1k", "--classes")
    assert ids == tuple(info.label_names())
    assert in_words(ids) == tuple(info.index_to_description(number).split(",")[0] for number in range(1000))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot be used (No such file or directory); name a file with a name per line, or imagenet-1k"),
        ("cat\nowl\ncat\n", "holds cat more than once; give each class its own name"),
        ("{1: 2", "cannot be used (Expecting property name"),
        ('{"1": "cat"}', "cannot be used ('0')"),
        ("", "holds no name"),
    ],
)
def test_what_is_no_list_of_names(tmp_path: Path, text: str | None, says: str) -> None:
    """In one line that names the key or option."""
    if text is not None:
        (tmp_path / "names").write_text(text)
    with pytest.raises(RequestError) as error:
        class_names(str(tmp_path / "names"), "--classes")
    assert str(error.value).startswith("--classes: ")
    assert says in str(error.value)


def test_the_names_of_a_job(tmp_path: Path) -> None:
    """A file, a list, or ImageNet's; as many as the network has classes."""
    (tmp_path / "names").write_text("cat\nowl\n")
    for given, names in (
        (str(tmp_path / "names"), ("cat", "owl")),
        (["cat", "owl"], ("cat", "owl")),
        ("imagenet-1k", class_names("imagenet-1k", "")),
        (None, None),
    ):
        images = images_field(label_names=given)
        resolved = with_label_names(images, len(names or ()), FolderStore())
        assert resolved.label_names == names
        assert resolved.model_dump(exclude={"label_names"}) == images.model_dump(exclude={"label_names"})
    with pytest.raises(RequestError, match=r"images.label_names: imagenet-1k has 1,000 names, .* has 3 classes"):
        with_label_names(images_field(label_names="imagenet-1k"), 3, FolderStore())


@pytest.mark.parametrize("fields", [{"label": None}, {"first_label": 1}])
def test_names_need_labels_that_they_count(fields: dict[str, object]) -> None:
    """A contradiction in the job file is an error."""
    with pytest.raises(ValueError, match="label_names"):
        images_field(label_names=["a", "b"], **fields)
