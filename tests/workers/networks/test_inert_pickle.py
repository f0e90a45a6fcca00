"""A hostile pickle takes little time and memory, and nothing in it is run."""

import pickle
import resource
import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from smoothcert.workers.networks.inert_pickle import Inert, InertUnpickler, StoredNumbers, StoredTensor
from tests.helpers.house import HOUSE

_DEEP = b")" + b"\x85" * 200_000  # a tuple in a tuple in a tuple
_WIDE = b")" + b"2\x86" * 60  # t = (t, t), sixty times: to hash it takes 2^60 steps
_HOSTILE = {
    "a deep key": b"}" + _DEEP + b"K\x01s.",
    "a wide key": b"}" + _WIDE + b"K\x01s.",
    "a wide key among several": b"}(" + _WIDE + b"K\x01u.",
    "a wide key of an old dict": b"(" + _WIDE + b"K\x01d.",
    "a wide member": b"\x8f(" + _WIDE + b"\x90.",
    "a wide frozen member": b"(" + _WIDE + b"\x91.",
    "a set that is called": b"cbuiltins\nset\n(" + _WIDE + b"l\x85R.",
    "a wide key of numbers": b"(X\x07\x00\x00\x00storageX\x07\x00\x00\x00float32" + _WIDE + b"NK\x01tQ.",
    "a memo of 4 billion": b"]r\xff\xff\xff\xff.",
    "bytes that are not there": b"\x96" + struct.pack("<Q", 1 << 40) + b".",
}


@pytest.mark.parametrize("name", _HOSTILE)
def test_a_small_pickle_takes_little_time_and_memory(name: str, tmp_path: Path) -> None:
    """A process with one second and 100 MB more than Python itself reads it, or refuses it with an exception."""
    (tmp_path / "pickle").write_bytes(_HOSTILE[name])
    script = (
        "import sys, resource; from smoothcert.workers.networks.inert_pickle import InertUnpickler\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 10**8,) * 2)\n"
        "seconds = int(resource.getrusage(resource.RUSAGE_SELF).ru_utime) + 2\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))\n"
        "try:\n    InertUnpickler(open(sys.argv[1], 'rb')).load()\n"
        "except Exception as error:\n    print(type(error).__name__)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "pickle")]
    result = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


def test_python_itself_runs_into_these_limits() -> None:
    """So the pickles of the test above are hostile."""
    with pytest.raises(MemoryError):
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (1 << 34, hard))
        try:
            pickle.loads(_HOSTILE["a memo of 4 billion"])
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    narrow = b"}" + b")" + b"2\x86" * 16 + b"K\x01s."
    ((key, _),) = pickle.loads(narrow).items()
    assert key[0] is key[1]


def _load(data: bytes) -> Any:
    return InertUnpickler(BytesIO(data)).load()


def test_plain_keys_stay_and_others_become_placeholders() -> None:
    """A mapping keeps all values and their order. Only keys that no state dict has are replaced."""
    content = {"a": 1, 2: "b", 2.5: None, None: [3], b"c": {}, (1, 2): "pair"}
    loaded = _load(pickle.dumps(content))
    assert list(loaded.values()) == list(content.values())
    assert [key for key in loaded if not isinstance(key, Inert)] == list(content)[:-1]


def _numbers(count: int) -> bytes:
    """A storage of so many float32, in the stack."""
    return pickle.dumps(("storage", "float32", "0", "cpu", count), protocol=2)[2:-1] + b"Q"


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "fine"),
    [
        (0, (2, 3), (3, 1), True),
        (-1, (2,), (1,), False),
        (0, (-3,), (1,), False),
        (0, (2,), (1, 1), False),
        (0, (2, "ab"), (1, 1), False),
        (0, (True,), (1,), False),
    ],
)
def test_a_tensor_with_an_impossible_shape_is_refused(
    offset: int, shape: tuple[int, ...], strides: tuple[int, ...], fine: bool
) -> None:
    """Offset, shape and strides are checked before they are used."""
    rebuild = b"\x80\x02ctorch._utils\n_rebuild_tensor\n("
    parts = b"".join(pickle.dumps(part, protocol=2)[2:-1] for part in (offset, shape, strides))
    data = rebuild + _numbers(6) + parts + b"tR."
    if fine:
        assert _load(data) == StoredTensor(StoredNumbers("0", "float32", 6), offset, shape, strides)
    else:
        with pytest.raises(pickle.UnpicklingError, match="a tensor"):
            _load(data)


def test_a_negative_count_of_numbers_is_not_a_storage() -> None:
    """It becomes a placeholder."""
    assert isinstance(_load(b"\x80\x02" + _numbers(-1) + b"."), Inert)
