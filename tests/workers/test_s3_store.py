"""S3 against a real server, where races matter, and against moto, where they do not."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import boto3
import moto
import pytest
from botocore.exceptions import ClientError

from manifests.errors import RequestError, RunError, SmoothcertError
from manifests.job import Images, Storage
from manifests.shards import find_shards
from workers import storage
from workers.s3_store import S3Store
from workers.storage import AnyStore

NAME = "votes/00000-a.parquet"


@pytest.fixture
def bucket_url(bucket: str) -> str:
    """A new bucket on the real server."""
    return f"s3://{bucket}"


@pytest.fixture(params=["radosgw", "moto"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new bucket on either server."""
    if request.param == "radosgw":
        yield request.getfixturevalue("bucket_url")
        return
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    storage._s3.cache_clear()
    with moto.mock_aws():
        boto3.client("s3").create_bucket(Bucket="test")
        yield "s3://test"


def test_published_once(either: str) -> None:
    """The first writer of a key wins; the second learns so and changes nothing."""
    store = S3Store(Storage())
    assert store.publish(f"{either}/run", NAME, b"first") is True
    before = store.find(f"{either}/run/{NAME}")
    assert store.publish(f"{either}/run", NAME, b"second, longer") is False
    assert store.read(f"{either}/run/{NAME}") == b"first"
    assert store.find(f"{either}/run/{NAME}") == before
    assert before is not None
    assert (before.url, before.size) == (f"{either}/run/{NAME}", 5)


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


def test_listing(either: str) -> None:
    """A listing has the objects directly in a folder, thousands of them, and its folders apart."""
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


def test_shards_of_a_bucket(either: str) -> None:
    """A brace pattern, a folder, a glob and an index in S3 name the same tars, with few calls."""
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
    """A local copy has the bytes, over several parts, under the object's name, and goes when it is done with."""
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


def test_remove(either: str) -> None:
    """The object is gone, its neighbours stay, and an object that is not there is no error."""
    store = S3Store(Storage())
    assert store.publish(either, "votes/a", b"one") and store.publish(either, "votes/b", b"two")
    for _ in range(2):
        store.remove(f"{either}/votes/a")
    assert [entry.url for entry in store.files(f"{either}/votes")] == [f"{either}/votes/b"]


def test_what_is_not_there(either: str) -> None:
    """A missing object is found to be missing; reading it is an error that names it."""
    store = S3Store(Storage())
    assert store.find(f"{either}/no.tar") is None
    with pytest.raises(RequestError, match=r"no\.tar: does not exist"):
        store.read(f"{either}/no.tar")
    with pytest.raises(RequestError, match=r"no\.tar: does not exist"), store.local(f"{either}/no.tar"):
        pass


@pytest.mark.parametrize("lost", [b"data", b"other"])
def test_an_answer_that_was_lost(either: str, monkeypatch: pytest.MonkeyPatch, lost: bytes) -> None:
    """A PUT that was carried out, and answered 500 or not at all, is refused when sent again: what is there counts."""
    store = S3Store(Storage())
    put = store._client.put_object

    def carried_out_but_lost(**request: object) -> object:
        monkeypatch.undo()
        put(**request | {"Body": lost})
        raise ClientError({"Error": {"Code": "412", "Message": "sent again by botocore"}}, "PutObject")

    monkeypatch.setattr(store._client, "put_object", carried_out_but_lost)
    assert store.publish(f"{either}/run", NAME, b"data") is False
    assert store.read(f"{either}/run/{NAME}") == lost


def test_busy_is_tried_again(either: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """409 means that another writer is at the key just now; it ends as published, or as one line."""
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


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "correct the secret key"),
        ({"AWS_ACCESS_KEY_ID": "wrong"}, "correct the access key"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}, "credentials"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "and the network"),
        ({"AWS_ENDPOINT_URL": "http://nowhere.invalid"}, "and the network"),
        ({"AWS_ENDPOINT_URL": "no url"}, "Invalid endpoint"),
    ],
)
def test_a_server_that_refuses_is_one_line(
    bucket_url: str, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], says: str
) -> None:
    """Wrong keys, no keys and a server that is not there each give one line within 30 seconds."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    start = time.monotonic()
    with pytest.raises(SmoothcertError, match=says) as error:
        S3Store(Storage()).files(f"{bucket_url}/data")
    assert time.monotonic() - start < 30
    assert "\n" not in str(error.value)


def test_a_server_that_is_silent_is_given_up(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that takes connections no more gives one line within 30 seconds."""
    import socket

    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{full.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(RunError, match="and the network"):
            S3Store(Storage()).find(f"{bucket_url}/a.tar")
        assert time.monotonic() - start < 30
        for one in waiting:
            one.close()


def test_a_missing_bucket_is_named(either: str) -> None:
    """A bucket that is not there is an error in every call, not an empty listing."""
    store = S3Store(Storage())
    for call in (
        lambda: store.find("s3://no-such-bucket-here/a"),
        lambda: store.files("s3://no-such-bucket-here/a"),
        lambda: store.publish("s3://no-such-bucket-here/run", NAME, b""),
    ):
        with pytest.raises(RequestError, match="correct the bucket"):
            call()


def test_a_url_without_a_bucket(either: str) -> None:
    """s3:// alone names nothing."""
    with pytest.raises(RequestError, match="names no bucket"):
        S3Store(Storage()).files("s3://")


def test_a_profile_that_is_not_there() -> None:
    """A profile that this machine does not have is one line."""
    with pytest.raises(RequestError, match="nobody"):
        S3Store(Storage(profile="nobody"))


def test_a_forked_process_has_connections_of_its_own() -> None:
    """Loaders of a training are forked; two that read from one socket would mix up their answers."""
    settings = Storage(endpoint_url="http://127.0.0.1:9")
    ours = storage._s3(settings)
    assert storage._s3(settings) is ours
    child = os.fork()
    if child == 0:
        os._exit(int(storage._s3(settings) is ours))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
