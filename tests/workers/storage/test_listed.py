"""Files and folders are those of the listing."""

from smoothcert.manifests.files import FileEntry, Listing
from smoothcert.workers.storage.listed import Listed


class _Store(Listed):
    def listing(self, folder: str, most: int | None = None) -> Listing | None:
        assert most is None
        return Listing([FileEntry("a/b", 1, "x")], ["a/c"], ["a/d"]) if folder == "a" else None


def test_files_and_folders_are_those_of_the_listing() -> None:
    """All of them; none of a folder that does not exist."""
    store = _Store()
    assert [entry.url for entry in store.files("a")] == ["a/b"]
    assert store.folders("a") == ["a/c"]
    assert (store.files("z"), store.folders("z")) == ([], [])
