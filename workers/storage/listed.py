"""The files and the folders of a folder, for stores that can list both at once.

Not covered: how a store lists (each store).
"""

from abc import ABC, abstractmethod

from smoothcert.manifests.files import FileEntry, Listing


class Listed(ABC):
    """Takes files and folders from the listing of a store."""

    @abstractmethod
    def listing(self, folder: str, most: int | None = None) -> Listing | None:
        """What lies directly in a folder, at most `most` items of it; None if it does not exist."""

    def files(self, folder: str) -> list[FileEntry]:
        """The files directly in a folder, by name; none if it does not exist."""
        listing = self.listing(folder)
        return listing.files if listing else []

    def folders(self, folder: str) -> list[str]:
        """The folders directly in a folder, by name; none if it does not exist."""
        listing = self.listing(folder)
        return listing.folders if listing else []
