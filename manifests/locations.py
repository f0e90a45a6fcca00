"""What a user names in a file or an option: a path, a URL, or weights of the Hugging Face Hub.

A field of a job file that holds such a name has one of the types below. Reading the file (yaml_file.py) makes its
relative paths absolute; a record that is read again, such as run.json, holds absolute paths already.

Not covered: what lies there (shards.py, workers/storage/).
"""

import os
import posixpath
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from pydantic import AfterValidator

from smoothcert.manifests.errors import RequestError

HUB_PREFIXES = ("hf-hub:", "timm:")
"""A checkpoint whose name starts with one of these comes from the Hugging Face Hub."""
IMAGENET = "imagenet-1k"
"""Stands for the WordNet ids of the classes of ILSVRC 2012, which timm has."""

READ_ONLY = ("https", "http", "hf", "gs", "az")
"""Schemes of URLs from which files are only read."""

_URL = re.compile(r"[a-z][a-z\d+.-]*://", re.IGNORECASE)
_NO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True)
class Anchored:
    """Marks a field that holds a path or a URL.

    Attributes:
        many: it may hold a list of them.
        from_hub: it may also name weights of the hub.
        words: values that are no paths. Instead of a path, such a field may hold a list of names.
    """

    many: bool = False
    from_hub: bool = False
    words: tuple[str, ...] = ()

    @property
    def may_be_list(self) -> bool:
        """Whether the field takes a list."""
        return self.many or bool(self.words)

    def anchor(self, value: Any, base: Path) -> Any:
        """The value of the field with absolute paths. A value that is not text stays as it is; the model refuses it.

        Raises:
            ValueError: YAML reads the name as a number, a date or a truth value.
        """
        if isinstance(value, list) and self.many:
            return [self.anchor(item, base) for item in value]
        if isinstance(value, bool | int | float | date):
            raise ValueError(f"YAML takes this name for {value!r}; put it in quotes")  # noqa: TRY004  a user's mistake
        if not isinstance(value, str) or not value or value in self.words:
            return value
        if self.from_hub and value.startswith(HUB_PREFIXES) and not os.path.lexists(base / value):
            return value
        return anchored(value, base)


def _writable(output: str) -> str:
    scheme, separator, _ = output.partition("://")
    if separator and scheme.lower() in READ_ONLY:
        raise ValueError(f"files are only read from {scheme}://; name a folder or s3://BUCKET/KEY")
    return output


Location = Annotated[str, Anchored()]
Output = Annotated[str, Anchored(), AfterValidator(_writable)]
Locations = Annotated[str | tuple[str, ...], Anchored(many=True)]
Names = Annotated[str | tuple[str, ...] | None, Anchored(words=(IMAGENET,))]
Weights = Annotated[str, Anchored(from_hub=True)]
OptionalWeights = Annotated[str | None, Anchored(from_hub=True)]


def anchored(text: str, base: Path | None = None) -> str:
    """Make a path absolute. A URL stays as it is, unless a file has exactly that name.

    Args:
        text: as the user wrote it.
        base: the folder from which a relative path starts; None for the current one.
    """
    base = base or Path.cwd()
    if os.path.lexists(base / text) and not text.startswith("s3://"):
        return os.path.normpath(base / text)
    if _URL.match(text):
        return text
    return os.path.normpath(base / os.path.expanduser(text))  # noqa: PTH111  Path.expanduser fails for unknown users


def is_web(url: str) -> bool:
    """Whether a URL is one of a web server, whose folders cannot be listed."""
    return url[:8].lower().startswith(("https://", "http://"))


def split_url(url: str) -> SplitResult:
    """The parts of a web server's URL.

    Raises:
        RequestError: it is no URL, such as http://[a/b.
    """
    try:
        return urlsplit(url)
    except ValueError as error:
        raise RequestError(f"{url}: is no URL ({error}); correct it") from None


def recorded_url(url: str) -> str:
    """The URL as a record keeps it: that of a web server without user and query, which may hold a key."""
    if not is_web(url):
        return url
    parts = split_url(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def name_of(url: str) -> str:
    """The base name; a slash at the end stays. Of a web server's URL without its query, and decoded."""
    if is_web(url):
        path = recorded_url(url)
        decoded = unquote(posixpath.basename(path.rstrip("/")))
        name = posixpath.basename(path.rstrip("/")) if "/" in decoded else decoded
        return name + "/" * path.endswith("/")
    return posixpath.basename(url.rstrip("/")) + "/" * url.endswith("/")


def beside(url: str, name: str) -> str:
    """The URL of a file that another file names; a relative name starts from that file's folder.

    Args:
        url: of the file that names it.
        name: a path or a URL.
    """
    if _URL.match(name):
        return name
    if is_web(url):
        return urljoin(recorded_url(url), quote(_NO_ESCAPE.sub("%25", name), safe="/%"))
    return posixpath.join(posixpath.dirname(url), name)
