"""Names of classes: from a file, or those of ImageNet as timm knows them."""

import json
from collections.abc import Sequence
from pathlib import Path

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Model
from smoothcert.manifests.names import one_line, printable

IMAGENET = "imagenet-1k"


def class_names(source: str | None, model: Model) -> Sequence[str]:
    """The names of the classes 0, 1, ...

    Args:
        source: `imagenet-1k`, or a file: a name per line, or a JSON list, or a JSON object from numbers to names; None:
            those of the job, if it has any.
        model: of the job.
    Raises:
        RequestError: the file cannot be read, is none of these, or has names of another number of classes.
    """
    if source is None:
        return model.class_names
    names = _names_of(source)
    if len(names) != model.classes:
        raise RequestError(
            f"--names {source}: holds {len(names):,} names, but the network has {model.classes:,} classes; name a file "
            "with a name for each"
        )
    return names


def name_of(number: int | None, names: Sequence[str]) -> str:
    """A class in words: its number, and its name if there is one."""
    if number is None:
        return "no class"
    return f"{number} ({printable(names[number])})" if number < len(names) else str(number)


def _names_of(source: str) -> list[str]:
    if source == IMAGENET:
        from timm.data import ImageNetInfo

        info = ImageNetInfo()
        return [info.index_to_description(number).split(",")[0] for number in range(info.num_classes())]
    try:
        text = Path(source).read_text(encoding="utf-8-sig")
        if not text.lstrip().startswith(("[", "{")):
            return text.splitlines()
        content = json.loads(text)
        names = content if isinstance(content, list) else [content[str(number)] for number in range(len(content))]
    except (OSError, ValueError, KeyError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise RequestError(
            f"--names {source}: cannot be used ({reason}); name a file with a name per line, or {IMAGENET}"
        ) from None
    return [str(name) for name in names]
