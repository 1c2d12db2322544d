"""Plain data as JSON and arrays, and back."""

import collections
import doctest
import enum
import json
import random

import numpy as np
import pytest

from mltoolkit.rllib.utils import data_codec
from mltoolkit.rllib.utils.data_codec import DecodeError, NotPlainDataError, decode, encode


class Colour(enum.IntEnum):
    RED = 1


Point = collections.namedtuple("Point", "x y")


def there_and_back(value, sort_keys=False):
    data, arrays = encode(value)
    assert all(array.dtype.kind in "biuf" for array in arrays.values())
    return decode(json.loads(json.dumps(data, sort_keys=sort_keys)), arrays)


VALUES = [
    None,
    True,
    -(10**40),
    0.1 + 0.2,
    -0.0,
    float("inf"),
    "text é \ud800",
    b"\x00\xff",
    bytearray(b"ab"),
    1 - 2j,
    range(1, 9, 2),
    [1, [2, (3,)]],
    {"a": {"b": ()}},
    {1: "int", (2, "x"): None, "dict": 3},
    {1, 2},
    frozenset({"a"}),
    collections.deque([1, 2], maxlen=2),
    collections.OrderedDict(b=1, a=2),
    collections.Counter("aab"),
    collections.defaultdict(list, a=[1]),
    Colour.RED,
    Point(1, [2]),
    np.float32(0.1),
    np.bool_(True),
    np.str_("s"),
    np.datetime64("2020-01-01"),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("sort_keys", [False, True])
def test_values(value, sort_keys):
    result = there_and_back({"value": [value, value]}, sort_keys)["value"]
    for item in result:
        assert item == value and type(item) is type(value) and repr(item) == repr(value)


def test_nan():
    assert np.isnan(there_and_back(float("nan")))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int16).reshape(2, 3),
        np.asfortranarray(np.random.default_rng(0).normal(size=(3, 4))),
        np.array(3.5),
        np.zeros((0, 2)),
        np.array([[b"S", b"F"]], dtype="S1"),
        np.array(["a", "bc"]),
        np.array([1 + 2j]),
        np.array([1, 2], dtype=">i4"),
        np.arange(10)[::3],
        np.array([True, False]),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays(array):
    result = there_and_back(array)
    np.testing.assert_array_equal(result, array)
    assert result.dtype == array.dtype and result.shape == array.shape
    assert result.flags.writeable and result is not array
    assert result.flags.f_contiguous == array.flags.f_contiguous or array.ndim < 2


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_generators_go_on(kind):
    rng = np.random.Generator(getattr(np.random, kind)(np.random.SeedSequence(3).spawn(2)[1]))
    rng.random(3)
    rng.integers(5, dtype=np.uint32)
    other = there_and_back(rng)
    assert other.normal() == rng.normal()
    assert other.spawn(1)[0].random() == rng.spawn(1)[0].random()


def test_older_generators_go_on():
    old, python = np.random.RandomState(1), random.Random(2)
    old.normal()
    python.gauss(0, 1)
    other_old, other_python = there_and_back([old, python])
    assert other_old.normal() == old.normal() and other_python.gauss(0, 1) == python.gauss(0, 1)


def test_one_object_stays_one_object():
    rng, items, array = np.random.default_rng(0), [1], np.zeros(2)
    items.append(items)
    first, second, (third,) = there_and_back([(rng, items, array), [rng, items, array], (items,)])
    assert all(one is other for one, other in zip(first, second, strict=True))
    assert third is first[1] and third[1] is third


def test_equal_tables_are_written_once_and_stay_separate():
    def table():
        return {state: [(1.0, state, 0.5, False)] * 3 for state in range(100)}

    once, _ = encode({"a": table()})
    twice, arrays = encode({"a": table(), "b": table()})
    assert len(json.dumps(twice)) < len(json.dumps(once)) + 50
    result = decode(twice, arrays)
    assert result == {"a": table(), "b": table()} and result["a"][3] is not result["b"][3]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": [1, object()]}, r"value\['a'\]\[1\] is a builtins.object"),
        ([lambda: None], r"value\[0\] is a builtins.function"),
        (np.array([None]), "dtype object"),
        (np.zeros(1, dtype=[("a", int)]), "dtype"),
        (collections.defaultdict(lambda: 0), "defaultdict of"),
        (type("Sub", (dict,), {})(), "Sub"),
        (iter([]), "iterator"),
    ],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
def test_what_is_not_plain_data(value, words):
    with pytest.raises(NotPlainDataError, match=words):
        encode(value)


@pytest.mark.parametrize(
    "data",
    [
        [1],
        {},
        {"call": "os.system"},
        {"ref": 3},
        {"shared": 0},
        {"array": "7"},
        {"array": "0", "dtype": "O", "shape": [1]},
        {"scalar": ["O", "00"]},
        {"enum": ["os", "system", "x"]},
        {"enum": ["builtins", "int", "real"]},
        {"namedtuple": ["builtins", "list", []]},
        {"namedtuple": ["builtins", "tuple", []]},
        {"generator": [{"dict": {"bit_generator": "seed"}}, None]},
        {"default_dict": ["eval", []]},
        {"map": [[{"list": []}, 1]]},
        {"tuple": 5},
        {"share": 0, "value": {"list": [{"shared": 0}]}},
    ],
    ids=str,
)
def test_damaged_data(data):
    with pytest.raises(DecodeError):
        decode(data, {"0": np.zeros(1, np.uint8)})


def test_classes_are_looked_for_and_never_imported():
    local = enum.Enum("Local", "A", module="elsewhere", qualname="Local")
    data, arrays = encode(local.A)
    with pytest.raises(DecodeError, match=r"no class elsewhere\.Local"):
        decode(data, arrays)
    assert decode(data, arrays, namespaces=[{"Local": local}]) is local.A


def test_the_examples_in_the_documentation():
    result = doctest.testmod(data_codec)
    assert result.attempted and not result.failed
