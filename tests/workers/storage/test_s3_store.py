"""S3 against a real server, where races matter, and against moto, where they do not."""

import errno
import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.job import Images, Storage
from smoothcert.manifests.shards import find_shards
from smoothcert.workers.storage import store as storage
from smoothcert.workers.storage.s3_store import S3Store
from smoothcert.workers.storage.store import AnyStore
from tests.helpers.store_calls import NAME, RANGES, RANGES_OF, all_calls


def test_an_object_is_published_once(either: str) -> None:
    """The second writer of a key gets False and changes nothing."""
    store = S3Store(Storage())
    assert store.publish(f"{either}/run", NAME, b"first") is True
    before = store.find(f"{either}/run/{NAME}")
    assert store.publish(f"{either}/run", NAME, b"second, longer") is False
    assert store.read(f"{either}/run/{NAME}") == b"first"
    assert store.find(f"{either}/run/{NAME}") == before
    assert before is not None
    assert (before.url, before.size) == (f"{either}/run/{NAME}", 5)


@pytest.mark.parametrize(("start", "length", "expected"), RANGES)
def test_a_range_is_a_slice_of_the_object(start: int, length: int, expected: bytes, either: str) -> None:
    """As in a folder."""
    boto3.client("s3").put_object(Bucket=either[5:], Key="a", Body=RANGES_OF)
    assert AnyStore(Storage()).read_range(f"{either}/a", start, length) == expected
    with pytest.raises(RequestError, match="does not exist"):
        AnyStore(Storage()).read_range(f"{either}/b", start, length)


def test_one_of_many_writers_wins(bucket_url: str) -> None:
    """Of 16 writers at once exactly one publishes, and what readers see is that writer's object, whole."""
    stores, together = [S3Store(Storage()) for _ in range(16)], threading.Barrier(16)

    def write(run: str, writer: int) -> bool:
        together.wait()
        return stores[writer].publish(run, NAME, bytes([writer]) * 300_000)

    for attempt in range(10):
        with ThreadPoolExecutor(16) as writers:
            won = list(writers.map(write, [f"{bucket_url}/{attempt}"] * 16, range(16)))
        assert won.count(True) == 1
        assert stores[0].read(f"{bucket_url}/{attempt}/{NAME}") == bytes([won.index(True)]) * 300_000


def test_a_listing_has_the_objects_and_folders_of_a_folder(either: str) -> None:
    """Also more than the thousand objects that one answer holds."""
    store, client = S3Store(Storage()), boto3.client("s3")
    with ThreadPoolExecutor(8) as pool:
        keys = [f"data/{number:05d}.tar" for number in range(1100)]
        list(pool.map(lambda key: client.put_object(Bucket=either[5:], Key=key, Body=b"12"), keys))
    for key in ("data/deeper/x.tar", "data/", "database.tar", "top.tar"):
        client.put_object(Bucket=either[5:], Key=key, Body=b"")
    listed = store.files(f"{either}/data")
    assert [(entry.url, entry.size) for entry in listed] == [(f"{either}/{key}", 2) for key in keys]
    assert store.files(f"{either}/data/") == listed
    assert [entry.url for entry in store.files(either)] == [f"{either}/database.tar", f"{either}/top.tar"]
    assert store.folders(either) == [f"{either}/data"]
    assert store.folders(f"{either}/data") == [f"{either}/data/deeper"]
    assert store.files(f"{either}/missing") == store.folders(f"{either}/missing") == []


def test_a_page_is_one_to_a_browser(either: str) -> None:
    """Without a type it would be downloaded. Other files are bytes, or what their name says."""
    store, client = S3Store(Storage()), boto3.client("s3")
    store.replace(f"{either}/history/index.html", b"<html>")
    for name in ("report.html", "night.json", "0.parquet", "_SUCCESS"):
        assert store.publish(f"{either}/history", name, b"{}")
    kinds = {
        name: client.head_object(Bucket=either[5:], Key=f"history/{name}")["ContentType"]
        for name in ("index.html", "report.html", "night.json", "0.parquet", "_SUCCESS")
    }
    assert kinds == {
        **dict.fromkeys(("index.html", "report.html"), "text/html"),
        "night.json": "application/json",
        **dict.fromkeys(("0.parquet", "_SUCCESS"), "binary/octet-stream"),
    }


def test_every_form_of_shards_names_the_same_tars_of_a_bucket(either: str) -> None:
    """A brace pattern, a folder, a glob and an index."""
    client = boto3.client("s3")
    for number in range(12):
        client.put_object(Bucket=either[5:], Key=f"d/{number:02d}.tar", Body=b"x" * number)
    index = b'{"shardlist": [%s]}' % b", ".join(b'{"url": "%02d.tar", "nsamples": 3}' % n for n in range(12))
    client.put_object(Bucket=either[5:], Key="d/index.json", Body=index)
    store = AnyStore(Storage())
    specs = [f"{either}/d/{{00..11}}.tar", f"{either}/d", f"{either}/d/*.tar", f"{either}/d/index.json"]
    found = [find_shards(Images(shards=spec), store) for spec in specs]
    assert [[(shard.name, shard.url, shard.size) for shard in shards] for shards in found] == [
        [(f"{n:02d}.tar", f"{either}/d/{n:02d}.tar", n) for n in range(12)]
    ] * 4
    with pytest.raises(RequestError, match=r"12\.tar does not exist"):
        find_shards(Images(shards=f"{either}/d/{{00..12}}.tar"), store)


def test_a_large_object_is_copied_whole(either: str) -> None:
    """A local copy has all parts and the object's name, and is removed afterwards."""
    data = os.urandom(20 << 20)
    boto3.client("s3").put_object(Bucket=either[5:], Key="d/large.tar", Body=data)
    with S3Store(Storage()).local(f"{either}/d/large.tar") as path:
        assert path.name == "large.tar"
        assert path.read_bytes() == data
    assert not path.parent.exists()


def test_fingerprint_changes_with_the_object(either: str) -> None:
    """An object that was written again has another fingerprint, even with equal size."""
    store, client = S3Store(Storage()), boto3.client("s3")
    found = []
    for body in (b"12", b"34"):
        client.put_object(Bucket=either[5:], Key="a.tar", Body=body)
        found.append(store.find(f"{either}/a.tar"))
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].fingerprint != found[1].fingerprint


def test_remove_takes_one_object_away(either: str) -> None:
    """Its neighbours stay, and an object that is missing is no error."""
    store = S3Store(Storage())
    assert store.publish(either, "votes/a", b"one") and store.publish(either, "votes/b", b"two")
    for _ in range(2):
        store.remove(f"{either}/votes/a")
    assert [entry.url for entry in store.files(f"{either}/votes")] == [f"{either}/votes/b"]


def test_error_names_the_object_that_is_missing(either: str) -> None:
    """`find` gives None; reading it is an error."""
    store = S3Store(Storage())
    assert store.find(f"{either}/no.tar") is None
    with pytest.raises(RequestError, match=r"no\.tar: does not exist"):
        store.read(f"{either}/no.tar")
    with pytest.raises(RequestError, match=r"no\.tar: does not exist"), store.local(f"{either}/no.tar"):
        pass


@pytest.mark.parametrize("lost", [b"data", b"other"])
def test_a_put_whose_answer_was_lost_finds_the_object(
    either: str, monkeypatch: pytest.MonkeyPatch, lost: bytes
) -> None:
    """The server carried the PUT out and refuses it when it is sent again. The object that is there counts."""
    store = S3Store(Storage())
    put = store._client.put_object

    def carried_out_but_lost(**request: object) -> object:
        monkeypatch.undo()
        put(**request | {"Body": lost})
        raise ClientError({"Error": {"Code": "412", "Message": "sent again by botocore"}}, "PutObject")

    monkeypatch.setattr(store._client, "put_object", carried_out_but_lost)
    assert store.publish(f"{either}/run", NAME, b"data") is False
    assert store.read(f"{either}/run/{NAME}") == lost


def test_a_busy_key_is_tried_again(either: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """409 means that another writer is at the key. It ends as published or as one line."""
    store = S3Store(Storage())
    put, answers = store._client.put_object, ["ConditionalRequestConflict"] * 2

    def busy(**request: object) -> object:
        if answers:
            raise ClientError({"Error": {"Code": answers.pop(), "Message": ""}}, "PutObject")
        return put(**request)

    monkeypatch.setattr(store._client, "put_object", busy)
    assert store.publish(f"{either}/run", NAME, b"data") is True
    answers += ["ConditionalRequestConflict"] * 99
    with pytest.raises(RunError, match="busy"):
        store.publish(f"{either}/run", "other", b"data")


def test_error_names_a_missing_bucket(either: str) -> None:
    """Every call is an error; none gives an empty listing."""
    store = S3Store(Storage())
    for call in (
        lambda: store.find("s3://no-such-bucket-here/a"),
        lambda: store.files("s3://no-such-bucket-here/a"),
        lambda: store.publish("s3://no-such-bucket-here/run", NAME, b""),
    ):
        with pytest.raises(RequestError, match="correct the bucket"):
            call()


def test_a_url_without_a_bucket_is_refused(either: str) -> None:
    """s3:// alone names nothing."""
    with pytest.raises(RequestError, match="names no bucket"):
        S3Store(Storage()).files("s3://")


def test_error_names_a_missing_profile() -> None:
    """In one line."""
    with pytest.raises(RequestError, match="nobody"):
        S3Store(Storage(profile="nobody"))


def _keep(requests: list[Any], request: Any, **_: object) -> None:
    requests.append(request)


def sent_by(store: S3Store, bucket: str) -> dict[str, list[Any]]:
    """The requests of each method, as they leave."""
    client = boto3.client("s3")
    client.put_object(Bucket=bucket[5:], Key="data/a.tar", Body=b"12")
    client.put_object(Bucket=bucket[5:], Key="data/large.tar", Body=bytes(20 << 20))
    sent: dict[str, list[Any]] = {}
    for name, call in all_calls(store, bucket).items():
        sent[name] = []
        seen = partial(_keep, sent[name])
        store._client.meta.events.register("before-send.s3", seen, name)
        call()
        store._client.meta.events.unregister("before-send.s3", seen, name)
    assert all(sent.values())
    assert len(sent["local"]) > 2
    return sent


def test_an_anonymous_store_signs_nothing(in_moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads public buckets without any credentials. Other stores sign every request."""
    for anonymous in (False, True):
        if anonymous:
            boto3.client("s3").put_bucket_policy(Bucket=in_moto[5:], Policy=EVERYONE)
        sent = sent_by(S3Store(Storage(anonymous=anonymous)), in_moto)
        signed = {name: {"Authorization" in request.headers for request in each} for name, each in sent.items()}
        assert signed == {name: {not anonymous} for name in sent}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert S3Store(Storage(anonymous=True)).read(f"{in_moto}/data/a.tar") == b"12"
    with pytest.raises(RequestError, match=r"Unable to locate credentials; .*storage\.anonymous: true"):
        S3Store(Storage()).read(f"{in_moto}/data/a.tar")


EVERYONE = """{"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*",
               "Resource": ["arn:aws:s3:::test", "arn:aws:s3:::test/*"]}]}"""


def test_the_requester_pays_for_every_request(in_moto: str) -> None:
    """Also for parts of a large object, copies and removals. Without the setting no request says so."""
    for pays in (False, True):
        sent = sent_by(S3Store(Storage(requester_pays=pays)), in_moto)
        said = {name: {request.headers.get("x-amz-request-payer") for request in each} for name, each in sent.items()}
        assert said == {name: {b"requester" if pays else None} for name in sent}


def test_keys_with_special_characters_are_taken_literally(either: str) -> None:
    """A folder object that a console made is no tar."""
    client = boto3.client("s3")
    for folder in ("é" * 200, "x [y]", "q{1,2}", "h%20#+ y", "what?", "star*", "~"):
        client.put_object(Bucket=either[5:], Key=f"{folder}/", Body=b"")
        client.put_object(Bucket=either[5:], Key=f"{folder}/{folder}.tar", Body=b"12")
        store = AnyStore(Storage())
        for spec in (folder, f"{folder}/", f"{folder}/{folder}.tar", f"{folder}/*.tar"):
            (shard,) = find_shards(Images(shards=f"{either}/{spec}"), store)
            assert shard.url == f"{either}/{folder}/{folder}.tar"
            with store.local(shard.url) as path:
                assert path.read_bytes() == b"12"


def test_named_tars_need_no_listing(in_moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many public buckets may be read but not listed."""
    for number in range(3):
        boto3.client("s3").put_object(Bucket=in_moto[5:], Key=f"d/{number}.tar", Body=b"12")
    store = AnyStore(Storage())

    def deny(folder: str, most: int | None = None) -> None:
        raise RequestError(f"{folder}: S3 says AccessDenied")

    monkeypatch.setattr(storage._s3(Storage()), "listing", deny)
    assert len(find_shards(Images(shards=f"{in_moto}/d/{{0..2}}.tar"), store)) == 3
    assert len(find_shards(Images(shards=(f"{in_moto}/d/0.tar", f"{in_moto}/d/1.tar")), store)) == 2
    for spec in ("d", "d/*.tar"):
        with pytest.raises(RequestError, match="/d: S3 says AccessDenied"):
            find_shards(Images(shards=f"{in_moto}/{spec}"), store)


def test_a_notice_or_an_error_names_what_is_not_read_in_a_bucket(either: str) -> None:
    """As in a folder of this machine."""
    store, client = AnyStore(Storage()), boto3.client("s3")
    for key in ("data/00.tar", "data/01.tar.part", "data/more/02.tar", "other/b.tar.gz", "other/a.zip"):
        client.put_object(Bucket=either[5:], Key=key, Body=b"12")
    heard: list[str] = []
    assert len(find_shards(Images(shards=f"{either}/data"), store, heard.append)) == 1
    assert f"{either}/data/ also holds what is not read: 01.tar.part, more/;" in heard[0]
    with pytest.raises(RequestError, match=r"other/ holds 2 files but no \*\.tar: a\.zip, b\.tar\.gz; .*gunzip"):
        find_shards(Images(shards=f"{either}/other"), store)
    with pytest.raises(RequestError, match=r"/date does not exist; .* holds data; correct the name"):
        find_shards(Images(shards=f"{either}/date"), store)


def test_error_names_the_full_temporary_folder(in_moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a remedy. Nothing of the tar stays there."""
    boto3.client("s3").put_object(Bucket=in_moto[5:], Key="a.tar", Body=b"12")
    store = S3Store(Storage())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store._client, "download_file", fail)
    full = rf"{tmp_path} is full \(No space left on device\); .* set TMPDIR to a folder with room for s3://test/a\.tar"
    with pytest.raises(RunError, match=full), store.local(f"{in_moto}/a.tar"):
        pass
    assert not list(tmp_path.iterdir())


def test_error_says_that_there_is_no_temporary_folder(in_moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And which variable names one."""
    boto3.client("s3").put_object(Bucket=in_moto[5:], Key="a.tar", Body=b"12")
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    says = r"no temporary folder can be made: .*set TMPDIR"
    with pytest.raises(RunError, match=says), S3Store(Storage()).local(f"{in_moto}/a.tar"):
        pass
