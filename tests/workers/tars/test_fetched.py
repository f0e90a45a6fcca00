"""A tar is fetched once, and what was planned is what is read."""

import hashlib
import os
from contextlib import contextmanager
from pathlib import Path

import pytest

from smoothcert.manifests.errors import ShardError
from smoothcert.manifests.job import Storage
from smoothcert.manifests.shards import Shard
from smoothcert.workers.storage.http_client import Source
from smoothcert.workers.storage.http_store import HttpStore, copied
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.tars.fetched import fetched
from tests.helpers.tars import images_field, labelled, tar_of, write_tar

STORE = AnyStore(Storage())


def shard_of(tar: Path) -> Shard:
    """As a plan has it."""
    entry = STORE.find(str(tar))
    assert entry is not None
    return Shard(tar.name, entry.url, entry.size, entry.fingerprint)


def test_the_tar_is_hashed(tmp_path):
    """And its headers are read once, for the figures of the file."""
    tar = write_tar(tmp_path, tar_of([*labelled(2), ("._x.png", b"x")]))
    with fetched(shard_of(tar), STORE) as shard:
        assert shard.sha256 == hashlib.sha256(tar.read_bytes()).hexdigest()
        assert shard.contents(images_field()).left_out.system_members == 1


def test_a_tar_that_changed_since_the_plan_is_refused(tmp_path):
    """Another size, another time, or no file at all."""
    tar = write_tar(tmp_path, tar_of(labelled(2)))
    shard = shard_of(tar)
    write_tar(tmp_path, tar_of(labelled(40)))
    with pytest.raises(ShardError, match=f"{tar} changed since the run was planned"), fetched(shard, STORE):
        pytest.fail("it was opened")
    write_tar(tmp_path, tar_of(labelled(2)))
    os.utime(tar, (1, 1))
    with pytest.raises(ShardError, match="changed since the run was planned"), fetched(shard, STORE):
        pytest.fail("it was opened")
    tar.unlink()
    with pytest.raises(ShardError, match=f"{tar} is gone, or not on .*; restore it"), fetched(shard, STORE):
        pytest.fail("it was opened")


def test_a_tar_that_changes_while_it_is_read_is_refused(tmp_path):
    """What was read may be of both."""
    tar = write_tar(tmp_path, tar_of(labelled(2)))
    with pytest.raises(ShardError, match="changed since the run was planned"), fetched(shard_of(tar), STORE) as shard:
        assert shard.contents(images_field()).images
        os.utime(tar, (1, 1))


def test_a_tar_that_is_sent_with_another_size_is_refused(web):
    """Whatever the store: what is read must be what was planned."""

    class Store(HttpStore):
        @contextmanager
        def local(self, url):
            with copied(self._client, Source(url, url, {}, "")) as (path, _):
                yield path

    web.announced["/a.tar"], web.files["/a.tar"] = tar_of(labelled(10)), tar_of(labelled(5))
    entry = Store().find(f"{web.url}/a.tar")
    shard = Shard("a.tar", entry.url, entry.size, entry.fingerprint)
    with (
        pytest.raises(ShardError, match=rf"changed since .*\({shard.size} bytes then, .* now\)"),
        fetched(shard, Store()),
    ):
        pass
