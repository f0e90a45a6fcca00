"""Labels become class numbers as the user's network counts them, or the user learns that they may not."""

from collections.abc import Sequence

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.pack.classes import number_classes
from smoothcert.pipeline.pack.listing import Listing


def listing(labels: Sequence[int | str | None], names: tuple[str, ...] | None = None, what: str = "folders") -> Listing:
    texts = [str(number) for number in range(len(labels))]
    return Listing(texts, texts, labels, names, (), "", lambda _: b"", what)


@pytest.mark.parametrize(
    ("labels", "known", "numbers", "names"),
    [
        (["owl", "cat", "owl", None], None, [1, 0, 1, -1], ("cat", "owl")),
        (["owl", "cat"], ("owl", "dog", "cat"), [0, 2], ("owl", "dog", "cat")),
        (["2", "0", "10"], None, [2, 0, 10], None),
        (["2", "0", "10"], ("0", "10", "2"), [2, 0, 1], ("0", "10", "2")),  # the order of torchvision
        (["2", "0"], ("a", "b", "c"), [2, 0], ("a", "b", "c")),
        ([3, None, 0], None, [3, -1, 0], None),
        (["-1", "1"], None, [-1, 1], None),
    ],
)
def test_numbers(
    labels: list[int | str | None], known: tuple[str, ...] | None, numbers: list[int], names: tuple[str, ...] | None
) -> None:
    """By a list, as numbers, or by alphabet."""
    found = number_classes(listing(labels), known)
    assert (found.numbers.tolist(), found.names) == (numbers, names)


def test_names_of_the_source_go_with_its_numbers() -> None:
    """A ClassLabel of the hub."""
    found = number_classes(listing([1, 0], ("cat", "owl"), "labels"), None)
    assert (found.numbers.tolist(), found.names, found.notices) == ([1, 0], ("cat", "owl"), ())


@pytest.mark.parametrize(
    ("labels", "known", "says"),
    [
        (["cat", "lion"], ("cat", "dog"), "--classes: has no lion, which the folders name; add them"),
        (["3"], ("a", "b", "c"), "labels: 3 is no class of the 3 classes (0 to 2)"),
        ([70000], None, "labels: 70000 is no class from 0 to 65535"),
    ],
)
def test_labels_that_are_no_classes(labels: list[int | str | None], known: tuple[str, ...] | None, says: str) -> None:
    """One line names them."""
    with pytest.raises(RequestError) as error:
        number_classes(listing(labels), known)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["1", "2", "10"], "taken as class numbers; a network that was trained with torchvision's ImageFolder counts"),
        (["c1", "c10", "c2"], "as torchvision's ImageFolder does; timm sorts digits by value"),
        (["B", "a"], "timm sorts digits by value and ignores case"),
        (["0", "1", "2"], None),
        (["a", "b"], None),
    ],
)
def test_folders_that_are_counted_in_two_ways(labels: list[int | str | None], says: str | None) -> None:
    """A network's classes may be in another order: nothing else would tell."""
    notices = number_classes(listing(labels), None).notices
    assert (says in notices[0]) if says else not notices
    assert not number_classes(listing(labels, what="labels"), None).notices
