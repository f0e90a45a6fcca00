"""Actors in this process: a fleet's calls to Ray, answered at once. Starting a real actor takes ten seconds.

Not covered: what Ray adds, as processes that die and errors that are sent between them (test_fleet.py, test_faults.py).
"""

import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from smoothcert.pipeline.fleet import fleet


@contextmanager
def actors_here() -> Iterator[None]:
    """Fleets run their actors in this process. Ray itself must run: it says what the cluster has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fleet, "ray", _RayHere)
        patch.setenv("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", ""))  # an actor changes it
        yield


class _Answer:
    """What a call returned or raised."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._value, self._error = None, None
        try:
            self._value = call()
        except StopIteration:
            raise
        except Exception as error:
            self._error = RayTaskError("call", traceback.format_exc(), error).as_instanceof_cause()

    def get(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value


class _Method:
    """A method of an actor; `remote` calls it."""

    def __init__(self, method: Callable[..., Any], *, streams: bool = False) -> None:
        self._method, self._streams = method, streams

    def options(self, *, num_returns: str) -> "_Method":
        return _Method(self._method, streams=num_returns == "streaming")

    def remote(self, *arguments: Any, **options: Any) -> Any:
        return self._stream(*arguments) if self._streams else _Answer(partial(self._method, *arguments, **options))

    def _stream(self, *arguments: Any) -> Iterator[_Answer]:
        items = self._method(*arguments)
        while True:
            try:
                yield _Answer(partial(next, items))
            except StopIteration:
                return


class _Actor:
    """An actor's handle."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> _Method:
        return _Method(getattr(self._actor, name))


class _ActorClass:
    """What `ray.remote` makes of a class."""

    def __init__(self, actor_class: type) -> None:
        self._class = actor_class

    def options(self, **_resources: float) -> "_ActorClass":
        return self

    def remote(self, *arguments: Any) -> _Actor:
        return _Actor(self._class(*arguments))


class _RayHere:
    """The functions of ray that a fleet calls."""

    @staticmethod
    def put(value: Any) -> Any:
        return value

    @staticmethod
    def remote(**_options: object) -> type[_ActorClass]:
        return _ActorClass

    @staticmethod
    def get(answer: _Answer, timeout: float) -> Any:
        return answer.get()

    @staticmethod
    def wait(waiting: Sequence[Any], **_options: object) -> tuple[list[Any], list[Any]]:
        """All are ready. The first alone is taken, so one shard ends before the next begins."""
        return list(waiting[:1]), list(waiting[1:])

    @staticmethod
    def kill(actor: _Actor, *, no_restart: bool) -> None:
        """Its streams are dropped, and it with them."""
