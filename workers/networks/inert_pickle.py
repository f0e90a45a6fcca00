"""A pickle of tensors and plain containers, read without torch and without running anything in it.

A pickle is a program that calls what it names. Here nothing that it names is imported. Tensors become records of
where their numbers lie, containers become plain ones, and objects of every other class become an inert placeholder. A
call of anything else does nothing and returns a placeholder, or is refused if the caller asks for that.

A small pickle cannot take much time or memory. The interpreter is Python's own, written in Python, so no number in a
pickle sets the size of a table. Keys are hashed only if they are plain: hashing nested tuples may take for ever.

Not covered: the file around the pickle, and the numbers (torch_file.py).
"""

import pickle
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import IO, Any, ClassVar, NamedTuple, Self

ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "complex64": 8,
    "complex128": 16,
}
"""Number formats that are read, under torch's names, and the bytes of one number."""


class CallRefusedError(Exception):
    """The pickle calls something that is neither a tensor nor a plain container; the text is its name."""


class StoredNumbers(NamedTuple):
    """Numbers of one format that lie together in the file under a key."""

    key: str
    dtype: str
    length: int


class StoredTensor(NamedTuple):
    """A tensor as a view of stored numbers; offset and strides are in numbers."""

    numbers: StoredNumbers
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Inert:
    """Replaces any class or object, and ignores any state."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass

    def __setitem__(self, _key: Any, _value: Any) -> None:
        pass

    def append(self, _item: Any) -> None:
        pass

    add = extend = append


_Interpreter: Any = pickle._Unpickler  # undocumented, and the same since Python 3.0


class InertUnpickler(_Interpreter):  # type: ignore[misc]
    """One object of a pickle.

    Args:
        file: open at the object.
        refuse_calls: whether calling anything unknown is an error.
    Attributes:
        numbers: the stored numbers that `load` met, by key.
    Raises:
        CallRefusedError: by `load`; a damaged or hostile pickle may also cause any other error.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(_Interpreter.dispatch)

    def __init__(self, file: IO[bytes], *, refuse_calls: bool = False) -> None:
        super().__init__(file)
        self.numbers: dict[str, StoredNumbers] = {}
        self._unknown = _NotCallable if refuse_calls else type

    def _push_dict(self) -> None:
        self.append(_Dict())

    def _push_dict_of_items(self) -> None:
        items = self.pop_mark()
        self.append(_Dict(zip(items[::2], items[1::2], strict=True)))

    def _push_set(self) -> None:
        self.append(Inert())

    def _push_set_of_items(self) -> None:
        self.pop_mark()
        self.append(Inert())

    dispatch[pickle.EMPTY_DICT[0]] = _push_dict
    dispatch[pickle.DICT[0]] = _push_dict_of_items
    dispatch[pickle.EMPTY_SET[0]] = _push_set
    dispatch[pickle.FROZENSET[0]] = _push_set_of_items
    dispatch[pickle.BYTEARRAY8[0]] = dispatch[pickle.BINBYTES8[0]]  # the original trusts the length in the pickle

    def find_class(self, module: str, name: str) -> Any:
        if name == "_load_type" and module in ("dill._dill", "dill.dill"):  # dill's name for a builtin type
            return _Harmless(partial(self.find_class, "builtins"))
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        module = _RENAMED.get(module, module)
        return _HARMLESS.get((module, name)) or self._unknown(f"{module}.{name}", (Inert,), {})

    def persistent_load(self, pid: Any) -> Any:
        """torch keeps numbers outside the pickle: ("storage", type, key, device, count) and in old files a view."""
        match pid:
            case ("storage", str(dtype), str() | int() as key, _, int(count), *view) if count >= 0 and not any(view):
                numbers = StoredNumbers(str(key), dtype, count)
                self.numbers.setdefault(numbers.key, numbers)
                return numbers
            case ("module", type() as known, *_):  # old files keep a module's source beside its class
                return known
        return Inert()


class _NotCallable(type):
    """The type of placeholders that may be the class of an object but cannot be called."""

    def __call__(cls, *_args: Any, **_kwargs: Any) -> Any:
        raise CallRefusedError(cls.__name__)


class _Harmless:
    """A function that a pickle may call but cannot change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, _state: Any) -> None:
        pass


class _Dict(dict[Any, Any]):
    """Replaces every mapping; a key that is not plain becomes a placeholder, attributes are dropped."""

    def __init__(self, items: Iterable[tuple[Any, Any]] = ()) -> None:
        super().__init__()
        for key, value in items:
            self[key] = value

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key if type(key) in _PLAIN else Inert(), value)

    def __setstate__(self, _state: Any) -> None:
        pass


_PLAIN = (str, int, float, bool, bytes, type(None))


def _tensor(
    numbers: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    _requires_grad: Any = None,
    _hooks: Any = None,
    signs: Any = None,
) -> StoredTensor | Inert:
    """A tensor; a placeholder if the format of its numbers is unknown, or they are to be negated or conjugated."""
    if not isinstance(numbers, StoredNumbers) or signs:
        return Inert()
    shape, strides = tuple(shape), tuple(strides)
    for whole in (offset, *shape, *strides):
        if type(whole) is not int or whole < 0:
            raise pickle.UnpicklingError(f"a tensor's offset, shape or strides hold {whole!r:.40}")
    if len(shape) != len(strides):
        raise pickle.UnpicklingError(f"a tensor of {len(shape)} sides has {len(strides)} strides")
    return StoredTensor(numbers, offset, shape, strides)


def _first(value: Any, *_rest: Any) -> Any:
    return value


def _mapping(*args: Any) -> _Dict:
    """OrderedDict and similar classes, made from a mapping or from pairs."""
    items = args[0] if args else ()
    if isinstance(items, Mapping):
        return _Dict(items.items())
    return _Dict(items) if isinstance(items, list | tuple) else _Dict()


def _nothing(*_args: Any) -> Inert:
    return Inert()


_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
_RENAMED = {"__builtin__": "builtins", "numpy.core.multiarray": "numpy._core.multiarray"}
_HARMLESS = {
    ("builtins", "dict"): _Harmless(_mapping),
    ("builtins", "list"): _Harmless(list),
    ("builtins", "tuple"): _Harmless(tuple),
    ("builtins", "set"): _Harmless(_nothing),
    ("builtins", "frozenset"): _Harmless(_nothing),
    ("builtins", "bytes"): _Harmless(_nothing),
    ("builtins", "bytearray"): _Harmless(_nothing),
    ("builtins", "complex"): _Harmless(complex),
    ("collections", "OrderedDict"): _Harmless(_mapping),
    ("collections", "defaultdict"): _Harmless(_mapping),
    ("collections", "Counter"): _Harmless(_mapping),
    ("collections", "deque"): _Harmless(_nothing),
    ("torch", "Size"): _Harmless(tuple),
    ("torch", "device"): _Harmless(_nothing),
    ("torch._utils", "_rebuild_tensor"): _Harmless(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Harmless(_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): _Harmless(_nothing),  # formats of 8 bits, unsigned ones
    ("torch._utils", "_rebuild_parameter"): _Harmless(_first),
    ("torch._utils", "_rebuild_parameter_with_state"): _Harmless(_first),
    ("_codecs", "encode"): _Harmless(_nothing),
    ("numpy", "dtype"): _Harmless(_nothing),
    ("numpy._core.multiarray", "scalar"): _Harmless(_nothing),
    ("numpy._core.multiarray", "_reconstruct"): _Harmless(_nothing),
}
