"""Ray's long errors become one line: errors of real actors of a real Ray, and errors of every layer."""

import os

import pytest
import ray
from ray.exceptions import RayError, RaySystemError, RuntimeEnvSetupError

from smoothcert.manifests.errors import RequestError, RunError, ShardError
from smoothcert.pipeline.cluster.ray_errors import cause_of, essence


class Unreadable:
    """An argument that no actor can unpickle."""

    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise ModuleNotFoundError("No module named 'elsewhere'")


@ray.remote
class Actor:
    def __init__(self, way, _=None):
        if way == "import":
            import nowhere_to_be_found  # noqa: F401
        if way == "two lines":
            raise ValueError("one\n  two")
        if way == "shard":
            raise ShardError("00.tar: it ends early")

    def work(self, way):
        if way == "exit":
            os._exit(3)
        raise KeyError(way)


def error_of(way, *more):
    with pytest.raises(RayError) as caught:
        ray.get(Actor.remote(way, *more).work.remote(way))
    return cause_of(caught.value)


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize(
    ("way", "line"),
    [
        ("import", "an actor cannot start: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("two lines", "an actor cannot start: ValueError: one two"),
        ("shard", "an actor cannot start: smoothcert.manifests.errors.ShardError: 00.tar: it ends early"),
    ],
)
def test_an_actor_that_cannot_start_gives_the_last_line_of_its_cause(way, line):
    """Not the frames, addresses and process ids that Ray prints before it. The request is wrong: exit code 2."""
    error = error_of(way)
    assert isinstance(error, RequestError)
    assert str(error) == line


@pytest.mark.usefixtures("ray_here")
def test_an_argument_that_cannot_be_read_gives_the_last_line_of_its_cause():
    """Ray alone prints "At least one of the input arguments" and a page more."""
    error = error_of("argument", ray.put(Unreadable()))
    assert isinstance(error, RequestError)
    assert str(error) == "an actor cannot start: ModuleNotFoundError: No module named 'elsewhere'"


@pytest.mark.usefixtures("ray_here")
def test_an_actor_that_dies_says_how_it_ended():
    """Not its class, id and port, which Ray prints first."""
    error = error_of("exit")
    assert isinstance(error, RunError)
    assert str(error).startswith("an actor died: The actor died unexpectedly")
    assert "exit" in str(error)
    assert "actor_id" not in str(error)
    assert len(str(error).splitlines()) == 1


@pytest.mark.usefixtures("ray_here")
def test_an_error_of_a_task_is_its_type_and_text():
    """In one line."""
    assert str(error_of("other")) == "KeyError: 'other'"


TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\n    ^^^\nOSError: no conda\n'


@pytest.mark.parametrize(
    ("error", "kind", "line"),
    [
        (RuntimeEnvSetupError(f"[Node 1.2.3.4] {TRACEBACK}"), RequestError, "an actor cannot start: OSError: no conda"),
        (RaySystemError("no conda", TRACEBACK), RunError, "OSError: no conda"),
        (RayError(f"it isn't serializable.\nOriginal exception details:\n{TRACEBACK}"), RunError, "OSError: no conda"),
        (
            RuntimeError("CUDA error\nCompile with it"),
            RunError,
            "RuntimeError: CUDA error Compile with it",
        ),
        (RunError("ours"), RunError, "ours"),
    ],
)
def test_errors_of_every_layer_are_one_line(error, kind, line):
    """Of the runtime environment, of unpickling, of pickling, of a library, our own."""
    cause = cause_of(error)
    assert type(cause) is kind
    assert str(cause) == line


def test_a_long_line_is_cut_between_words():
    """Dots show that something is missing."""
    text = essence("word " * 100)
    assert len(text) <= 300
    assert text.endswith("word ...")
