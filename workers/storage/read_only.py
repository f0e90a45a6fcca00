"""The part of a store from which files are only read: it refuses to write, move and remove."""

from typing import NoReturn

from smoothcert.manifests.errors import RequestError


class ReadOnly:
    """Refuses each method of a store that would change something."""

    def pinned(self, url: str) -> str:
        return url

    def publish(self, run_url: str, name: str, data: bytes) -> bool:  # noqa: ARG002
        refuse_to_write(run_url)

    def replace(self, url: str, data: bytes) -> None:  # noqa: ARG002
        refuse_to_write(url)

    def move(self, url: str, to: str) -> None:  # noqa: ARG002
        refuse_to_write(url)

    def remove(self, url: str) -> None:
        refuse_to_write(url)

    def remove_folder(self, url: str) -> None:
        refuse_to_write(url)

    def sweep(self, run_url: str) -> None:
        refuse_to_write(run_url)


def refuse_to_write(url: str) -> NoReturn:
    """Raise the RequestError about a place from which files are only read."""
    scheme = url.partition("://")[0]
    raise RequestError(f"{url}: files are only read from {scheme}://; let the output be a folder or s3://BUCKET/KEY")
