"""Plain data as JSON and numpy arrays, and back: decoding runs no code of the file's choosing.

What is written: None, numbers, strings, bytes, lists, tuples, dictionaries, sets, deques, numpy arrays and scalars,
members of enumerations, named tuples, and the states of numpy's and Python's random generators. An object that occurs
twice is one object again after decoding.

Format of the JSON: ``null``, ``true``, ``false``, strings, integers and finite floats stand for themselves. Everything
else is an object with one key that names its type, ``{"tuple": [...]}``; of mutable ones that occur again it also
has ``"id"``, to which ``{"ref": id}`` refers. ``{"share": n, "value": ...}`` and ``{"shared": n}`` are equal but
separate. Arrays stand beside the JSON, under the key that ``{"array": key}`` gives, as bool, int, uint or float arrays
only, so that any array format can hold them.
"""

from __future__ import annotations

import base64
import collections
import enum
import math
import pickle
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

__all__ = ["DecodeError", "NotPlainDataError", "decode", "encode"]

_BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
_DEFAULT_FACTORIES = {"int": int, "float": float, "list": list, "dict": dict, "set": set, "str": str, "bool": bool}
_RANDOM_STATE_NAME = "MT19937"
#: Containers whose pickle is at least so long are looked up among those that were written already.
_SHARE_FROM_ITEMS = 8
_SHARE_FROM_BYTES = 512


class NotPlainDataError(TypeError):
    """Something is not plain data; the message says what and where."""


class DecodeError(ValueError):
    """What is to be decoded was not encoded by this module, or is damaged."""


def encode(value: Any) -> tuple[Any, dict[str, Any]]:
    """Turn plain data into JSON and arrays.

    Parameters
    ----------
    value : plain data, nested as deep as you like

    Returns
    -------
    data : what ``json.dumps`` takes
    arrays : dict of str to ndarray
        Of bool, int, uint or float dtype; copies.

    Raises
    ------
    NotPlainDataError
        Naming the type and the path of what cannot be encoded.

    Examples
    --------
    >>> import numpy as np
    >>> data, arrays = encode({"position": (1, 2.5), "map": np.eye(2)})
    >>> data
    {'dict': {'position': {'tuple': [1, 2.5]}, 'map': {'array': '0'}}}
    >>> decode(data, arrays)["position"]
    (1, 2.5)
    """
    encoder = _Encoder()
    try:
        return encoder.encode(value), encoder.arrays
    except _Refused as refused:
        path = _path_to(refused.value, value, "value", set())
        raise NotPlainDataError(f"{path} is {refused.problem}.") from None


def decode(data: Any, arrays: Mapping[str, Any], *, namespaces: Iterable[Mapping[str, Any]] = ()) -> Any:
    """Turn what `encode` returned back into plain data.

    Parameters
    ----------
    data : from ``json.loads``
    arrays : mapping of str to ndarray
    namespaces : iterable of mapping, optional
        Where else than in loaded modules to look for the classes of enumeration members and named tuples. No module
        is imported.

    Returns
    -------
    value
        New objects throughout; arrays are copied.

    Raises
    ------
    DecodeError
        If the data are damaged, or a class is not there.
    """
    try:
        return _Decoder(arrays, list(namespaces)).decode(data)
    except DecodeError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise DecodeError(f"The data are damaged: {type(error).__name__}: {error}.") from error


class _Refused(Exception):
    """What cannot be encoded. Where it is is found afterwards: keeping paths would triple the time of encoding."""

    def __init__(self, value: Any, problem: str) -> None:
        super().__init__(problem)
        self.value = value
        self.problem = problem


def _path_to(wanted: Any, value: Any, path: str, seen: set[int]) -> str:
    """How to get at an object inside containers; empty if it is not there."""
    if value is wanted:
        return path
    if id(value) in seen or isinstance(value, str) or not isinstance(value, (Mapping, Iterable)):
        return ""
    seen.add(id(value))
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    return next(filter(None, (_path_to(wanted, item, f"{path}[{key!r}]", seen) for key, item in items)), "")


class _Encoder:
    def __init__(self) -> None:
        self.arrays: dict[str, Any] = {}
        self._nodes: dict[int, dict[str, Any]] = {}
        self._alive: list[Any] = []  # an id is unique only among living objects
        self._shared: dict[bytes, int] = {}
        self._sharing = True
        self._next_id = 0

    def encode(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        writer = _WRITERS.get(kind)
        if writer is not None:
            node = self._nodes.get(id(value))
            if node is not None:
                if "id" not in node:
                    self._next_id += 1
                    node["id"] = self._next_id
                return {"ref": node["id"]}
            return self._container(value, kind, writer)
        if isinstance(value, np.generic):
            return self._numpy_scalar(value)
        if isinstance(value, enum.Enum) and value.name in kind.__members__:
            return {"enum": [kind.__module__, kind.__qualname__, value.name]}
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            items = [self.encode(item) for name, item in zip(kind._fields, value, strict=True)]
            return {"namedtuple": [kind.__module__, kind.__qualname__, items]}
        raise _Refused(value, f"a {kind.__module__}.{kind.__qualname__}, which is not plain data")

    def _container(self, value: Any, kind: type, writer: Callable[..., dict[str, Any]]) -> Any:
        number = None
        if self._sharing and kind in (dict, list, tuple) and len(value) >= _SHARE_FROM_ITEMS:
            content = _pickled(value)
            if len(content) >= _SHARE_FROM_BYTES:
                if content in self._shared:
                    return {"shared": self._shared[content]}
                number = self._shared[content] = len(self._shared)
        if number is None:
            return self._write(value, kind, writer)
        self._sharing = False
        try:
            return {"share": number, "value": self._write(value, kind, writer)}
        finally:
            self._sharing = True

    def _write(self, value: Any, kind: type, writer: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        if kind in (tuple, frozenset, bytes, complex, range):
            return writer(self, value)
        node: dict[str, Any] = {}
        self._nodes[id(value)] = node  # first, for what contains itself
        self._alive.append(value)
        node.update(writer(self, value))
        return node

    def _items(self, values: Iterable[Any]) -> list[Any]:
        return [self.encode(item) for index, item in enumerate(values)]

    def _list(self, value: Any) -> dict[str, Any]:
        return {"list": self._items(value)}

    def _tuple(self, value: Any) -> dict[str, Any]:
        return {"tuple": self._items(value)}

    def _set(self, value: Any) -> dict[str, Any]:
        return {type(value).__name__: self._items(value)}

    def _deque(self, value: Any) -> dict[str, Any]:
        return {"deque": [self._items(value), value.maxlen]}

    def _dict(self, value: Any) -> dict[str, Any]:
        if all(type(key) is str for key in value):
            return {"dict": {key: self.encode(item) for key, item in value.items()}}
        return {"map": self._pairs(value)}

    def _pairs(self, value: Any) -> list[Any]:
        return [[self.encode(k), self.encode(v)] for k, v in value.items()]

    def _ordered_dict(self, value: Any) -> dict[str, Any]:
        return {"ordered_dict": self._pairs(value)}

    def _counter(self, value: Any) -> dict[str, Any]:
        return {"counter": self._pairs(value)}

    def _default_dict(self, value: Any) -> dict[str, Any]:
        factory = value.default_factory
        name = None if factory is None else getattr(factory, "__name__", "")
        if name is not None and _DEFAULT_FACTORIES.get(name) is not factory:
            raise _Refused(value, f"a defaultdict of {factory!r}, which is not plain data")
        return {"default_dict": [name, self._pairs(value)]}

    def _bytes(self, value: Any) -> dict[str, Any]:
        return {type(value).__name__: base64.b64encode(value).decode("ascii")}

    def _complex(self, value: Any) -> dict[str, Any]:
        return {"complex": [self.encode(value.real), self.encode(value.imag)]}

    def _range(self, value: Any) -> dict[str, Any]:
        return {"range": [value.start, value.stop, value.step]}

    def _array(self, value: Any) -> dict[str, Any]:
        if value.dtype.hasobject or value.dtype.names is not None:
            raise _Refused(value, f"an array of dtype {value.dtype}, which is not plain data")
        key = str(len(self.arrays))
        node: dict[str, Any] = {"array": key}
        if value.flags.f_contiguous and not value.flags.c_contiguous:
            # Sums of floats depend on the order in memory.
            node["order"], value = "F", value.T
        if value.dtype.kind in "biuf" and value.dtype.isnative and value.dtype.itemsize <= 8:
            self.arrays[key] = np.array(value, order="C")
        else:
            node.update(dtype=value.dtype.str, shape=list(value.shape))
            self.arrays[key] = np.frombuffer(value.tobytes(), dtype=np.uint8).copy()
        return node

    def _numpy_scalar(self, value: Any) -> dict[str, Any]:
        if value.dtype.hasobject or value.dtype.names is not None:
            raise _Refused(value, f"a numpy scalar of dtype {value.dtype}, which is not plain data")
        return {"scalar": [value.dtype.str, value.tobytes().hex()]}

    def _generator(self, value: Any) -> dict[str, Any]:
        source = value.bit_generator
        if type(source).__name__ not in _BIT_GENERATORS:
            raise _Refused(value, f"a random generator on {type(source).__name__}, which is not known here")
        return {"generator": [self.encode(source.state), self._seed_sequence(source)]}

    def _seed_sequence(self, source: Any) -> Any:
        """What `Generator.spawn` goes by."""
        sequence = getattr(source, "seed_seq", None)
        if type(sequence) is not np.random.SeedSequence:
            return None
        children = sequence.n_children_spawned
        return [self.encode(part) for part in (sequence.entropy, sequence.spawn_key, sequence.pool_size, children)]

    def _random_state(self, value: Any) -> dict[str, Any]:
        state = value.get_state(legacy=False)
        if state["bit_generator"] != _RANDOM_STATE_NAME:
            raise _Refused(value, f"a RandomState on {state['bit_generator']}, which is not known here")
        return {"random_state": self.encode(state)}

    def _random(self, value: Any) -> dict[str, Any]:
        return {"random": self.encode(value.getstate())}


_WRITERS: dict[type, Callable[..., dict[str, Any]]] = {
    list: _Encoder._list,
    tuple: _Encoder._tuple,
    dict: _Encoder._dict,
    set: _Encoder._set,
    frozenset: _Encoder._set,
    collections.deque: _Encoder._deque,
    collections.OrderedDict: _Encoder._ordered_dict,
    collections.Counter: _Encoder._counter,
    collections.defaultdict: _Encoder._default_dict,
    bytes: _Encoder._bytes,
    bytearray: _Encoder._bytes,
    complex: _Encoder._complex,
    range: _Encoder._range,
    np.ndarray: _Encoder._array,
    np.random.Generator: _Encoder._generator,
    np.random.RandomState: _Encoder._random_state,
    random.Random: _Encoder._random,
}


def _pickled(value: Any) -> bytes:
    """What tells equal containers from others; empty for records, whose items are looked at one by one."""
    if type(value) is dict and all(type(key) is str for key in value):
        return b""
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:  # whatever it is, writing it will say so
        return b""


class _Decoder:
    def __init__(self, arrays: Mapping[str, Any], namespaces: list[Mapping[str, Any]]) -> None:
        self._arrays = arrays
        self._namespaces = namespaces
        self._objects: dict[int, Any] = {}
        self._shared: dict[int, Any] = {}
        self._in_shared = False

    def decode(self, node: Any) -> Any:
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        if not isinstance(node, dict) or not node:
            raise DecodeError(f"The data are damaged: {node!r:.80} has no type.")
        kind = next((key for key in node if key not in _FIELDS), "")
        reader = _READERS.get(kind)
        if reader is None:
            raise DecodeError(f"The data are damaged: there is no type {kind!r}.")
        return reader(self, node[kind], node)

    def _keep(self, node: dict[str, Any], value: Any) -> Any:
        if "id" in node:
            self._objects[node["id"]] = value
        return value

    def _ref(self, content: Any, node: dict[str, Any]) -> Any:
        return self._objects[content]

    def _share(self, content: Any, node: dict[str, Any]) -> Any:
        self._shared[content] = node["value"]
        return self._use_shared(content, node)

    def _use_shared(self, content: Any, node: dict[str, Any]) -> Any:
        if self._in_shared:
            raise DecodeError("The data are damaged: shared values do not nest.")
        self._in_shared = True
        try:
            return self.decode(self._shared[content])
        finally:
            self._in_shared = False

    def _float(self, content: Any, node: dict[str, Any]) -> float:
        return float(content)

    def _list(self, content: Any, node: dict[str, Any]) -> Any:
        value: list[Any] = self._keep(node, [])
        value.extend(self.decode(item) for item in content)
        return value

    def _tuple(self, content: Any, node: dict[str, Any]) -> Any:
        return tuple(self.decode(item) for item in content)

    def _set(self, content: Any, node: dict[str, Any]) -> Any:
        return self._keep(node, {self.decode(item) for item in content})

    def _frozenset(self, content: Any, node: dict[str, Any]) -> Any:
        return frozenset(self.decode(item) for item in content)

    def _deque(self, content: Any, node: dict[str, Any]) -> Any:
        items, maxlen = content
        value: Any = self._keep(node, collections.deque(maxlen=maxlen))
        value.extend(self.decode(item) for item in items)
        return value

    def _dict(self, content: Any, node: dict[str, Any]) -> Any:
        value: dict[str, Any] = self._keep(node, {})
        for key, item in content.items():
            value[key] = self.decode(item)
        return value

    def _fill(self, value: Any, pairs: Any) -> Any:
        for key, item in pairs:
            value[self.decode(key)] = self.decode(item)
        return value

    def _map(self, content: Any, node: dict[str, Any]) -> Any:
        return self._fill(self._keep(node, {}), content)

    def _ordered_dict(self, content: Any, node: dict[str, Any]) -> Any:
        return self._fill(self._keep(node, collections.OrderedDict()), content)

    def _counter(self, content: Any, node: dict[str, Any]) -> Any:
        return self._fill(self._keep(node, collections.Counter()), content)

    def _default_dict(self, content: Any, node: dict[str, Any]) -> Any:
        name, pairs = content
        factory: Any = None if name is None else _DEFAULT_FACTORIES[name]
        return self._fill(self._keep(node, collections.defaultdict(factory)), pairs)

    def _bytes(self, content: Any, node: dict[str, Any]) -> Any:
        return base64.b64decode(content)

    def _bytearray(self, content: Any, node: dict[str, Any]) -> Any:
        return self._keep(node, bytearray(base64.b64decode(content)))

    def _complex(self, content: Any, node: dict[str, Any]) -> Any:
        return complex(self.decode(content[0]), self.decode(content[1]))

    def _range(self, content: Any, node: dict[str, Any]) -> Any:
        return range(*content)

    def _array(self, content: Any, node: dict[str, Any]) -> Any:
        value = np.asarray(self._arrays[content])
        if "dtype" in node:
            dtype = np.dtype(node["dtype"])
            if dtype.hasobject:
                raise DecodeError("The data are damaged: an array of objects.")
            value = np.frombuffer(value.tobytes(), dtype=dtype).reshape(node["shape"])
        value = np.asfortranarray(value.T) if node.get("order") == "F" else value
        return self._keep(node, np.array(value, order="K"))

    def _scalar(self, content: Any, node: dict[str, Any]) -> Any:
        dtype = np.dtype(content[0])
        if dtype.hasobject:
            raise DecodeError("The data are damaged: a scalar of objects.")
        return np.frombuffer(bytes.fromhex(content[1]), dtype=dtype)[0] if dtype.itemsize else dtype.type()

    def _generator(self, content: Any, node: dict[str, Any]) -> Any:
        state, sequence = self.decode(content[0]), content[1]
        if state["bit_generator"] not in _BIT_GENERATORS:
            raise DecodeError(f"The data are damaged: no random generator {state['bit_generator']!r}.")
        seed: Any = 0
        if sequence is not None:
            entropy, spawn_key, pool_size, children = (self.decode(part) for part in sequence)
            seed = np.random.SeedSequence(
                entropy, spawn_key=spawn_key, pool_size=pool_size, n_children_spawned=children
            )
        source = getattr(np.random, state["bit_generator"])(seed)
        source.state = state
        return self._keep(node, np.random.Generator(source))

    def _random_state(self, content: Any, node: dict[str, Any]) -> Any:
        value = np.random.RandomState(0)
        value.set_state(self.decode(content))
        return self._keep(node, value)

    def _random(self, content: Any, node: dict[str, Any]) -> Any:
        value = random.Random(0)
        value.setstate(self.decode(content))
        return self._keep(node, value)

    def _class(self, module: str, qualname: str, base: type) -> Any:
        loaded = sys.modules.get(module)
        for namespace in (*([vars(loaded)] if loaded is not None else []), *self._namespaces):
            first, *rest = qualname.split(".")
            found: Any = namespace.get(first)
            for name in rest:
                found = vars(found).get(name) if isinstance(found, type) else None
            if isinstance(found, type) and issubclass(found, base) and found.__qualname__ == qualname:
                return found
        raise DecodeError(f"There is no class {module}.{qualname} here.")

    def _enum(self, content: Any, node: dict[str, Any]) -> Any:
        module, qualname, name = content
        return self._class(module, qualname, enum.Enum).__members__[name]

    def _namedtuple(self, content: Any, node: dict[str, Any]) -> Any:
        module, qualname, items = content
        cls = self._class(module, qualname, tuple)
        if len(getattr(cls, "_fields", ())) != len(items) or not hasattr(cls, "_fields"):
            raise DecodeError(f"{module}.{qualname} has not {len(items)} fields.")
        return tuple.__new__(cls, [self.decode(item) for item in items])


#: Keys beside the one that names the type.
_FIELDS = ("id", "value", "order", "dtype", "shape")

_READERS: dict[str, Callable[..., Any]] = {
    "ref": _Decoder._ref,
    "share": _Decoder._share,
    "shared": _Decoder._use_shared,
    "float": _Decoder._float,
    "list": _Decoder._list,
    "tuple": _Decoder._tuple,
    "dict": _Decoder._dict,
    "map": _Decoder._map,
    "set": _Decoder._set,
    "frozenset": _Decoder._frozenset,
    "deque": _Decoder._deque,
    "ordered_dict": _Decoder._ordered_dict,
    "counter": _Decoder._counter,
    "default_dict": _Decoder._default_dict,
    "bytes": _Decoder._bytes,
    "bytearray": _Decoder._bytearray,
    "complex": _Decoder._complex,
    "range": _Decoder._range,
    "array": _Decoder._array,
    "scalar": _Decoder._scalar,
    "generator": _Decoder._generator,
    "random_state": _Decoder._random_state,
    "random": _Decoder._random,
    "enum": _Decoder._enum,
    "namedtuple": _Decoder._namedtuple,
}
