"""Names of classes as pages show them.

Not covered: files of names (workers/tars/class_names.py).
"""

from collections.abc import Sequence

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.names import printable
from smoothcert.workers.runs.run import Run
from smoothcert.workers.tars.class_names import in_words, read_names


def class_names(source: str | None, run: Run) -> Sequence[str]:
    """The names of the classes 0, 1, ...

    Args:
        source: of option --names: `imagenet-1k` or a file; None: those that the run knows, if any.
        run: whose classes they are.
    Raises:
        RequestError: the file holds no names, or those of another number of classes.
    """
    if source is None:
        return run.class_names
    names, classes = in_words(read_names(source, "--names")), run.job.model.classes
    if len(names) != classes:
        raise RequestError(
            f"--names: {source} holds {len(names):,} names, but the network has {classes:,} classes; name a file with "
            "a name for each"
        )
    return names


def name_of(number: int | None, names: Sequence[str]) -> str:
    """A class in words: its number, and its name if there is one."""
    if number is None:
        return "no class"
    return f"{number} ({printable(names[number])})" if number < len(names) and names[number] else str(number)
