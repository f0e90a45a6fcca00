"""Names of classes in their order: from a file, or those of ImageNet as timm has them. Loads neither timm nor torch.

a name per line, a JSON list, or a JSON object from class numbers to names
imagenet-1k: the WordNet ids of ILSVRC 2012, such as n01440764
"""

import json
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Images
from smoothcert.manifests.locations import IMAGENET
from smoothcert.manifests.names import listed, one_line
from smoothcert.workers.storage.store import Store

_IMAGENET_CLASSES = 1000


def class_names(source: str, named_by: str, store: Store | None = None) -> tuple[str, ...]:
    """The names of the classes 0, 1, ..., each another; arguments and errors as for `read_names`.

    Raises:
        RequestError: also if a name comes twice.
    """
    names = read_names(source, named_by, store)
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise RequestError(f"{named_by}: {source} holds {listed(twice)} more than once; give each class its own name")
    return names


def read_names(source: str, named_by: str, store: Store | None = None) -> tuple[str, ...]:
    """A list of names.

    Args:
        source: `imagenet-1k`, or a file.
        named_by: the key or option that names it, for errors.
        store: holds the file; None for this machine.
    Raises:
        RequestError: the file cannot be read, or is no list of names.
    """
    if source == IMAGENET:
        return tuple((_of_timm() / "imagenet_synsets.txt").read_text().split())
    try:
        names = _names_in(Path(source).read_bytes() if store is None else store.read(source))
    except (OSError, ValueError, KeyError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise RequestError(
            f"{named_by}: {source} cannot be used ({reason}); name a file with a name per line, or {IMAGENET}"
        ) from None
    if not names:
        raise RequestError(f"{named_by}: {source} holds no name; name a file with a name per line, or {IMAGENET}")
    return tuple(names)


def with_label_names(images: Images, classes: int, store: Store) -> Images:
    """The section of a job with the list of names that its `label_names` stands for.

    Args:
        images: the section.
        classes: of the network.
        store: holds the file.
    Raises:
        RequestError: there is no list, or it has other classes than the network.
    """
    source = images.label_names
    if source is None:
        return images
    names = class_names(source, "images.label_names", store) if isinstance(source, str) else source
    if len(names) != classes:
        what = source if isinstance(source, str) else "the list"
        raise RequestError(
            f"images.label_names: {what} has {len(names):,} names, but the network has {classes:,} classes "
            "(model.classes); name each class of the network, in its order"
        )
    return images.model_copy(update={"label_names": names})


def in_words(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names for people: words for the WordNet ids of ImageNet, other names as they are."""
    if len(names) != _IMAGENET_CLASSES or names != read_names(IMAGENET, ""):
        return names
    lines = (_of_timm() / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    words = dict(line.split("\t") for line in lines)
    return tuple(words[name].split(",")[0] for name in names)


def _of_timm() -> Path:
    package = find_spec("timm")  # found, not imported: timm loads torch
    if package is None or package.origin is None:
        raise RequestError(
            f"{IMAGENET}: the names come with timm, which is not installed; run: pip install 'smoothcert[certify]'"
        )
    return Path(package.origin).parent / "data" / "_info"


def _names_in(data: bytes) -> list[str]:
    text = data.decode("utf-8-sig")
    if not text.lstrip().startswith(("[", "{")):
        return [line.strip() for line in text.splitlines() if line.strip()]
    content = json.loads(text)
    names = content if isinstance(content, list) else [content[str(number)] for number in range(len(content))]
    return [str(name) for name in names]
