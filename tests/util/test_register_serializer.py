"""register_serializer: instances travel by the given functions, in every direction."""

from __future__ import annotations

import pytest

import mltoolkit as ray
from mltoolkit.util import deregister_serializer, inspect_serializability, register_serializer


class Connection:
    """Refuses to be pickled."""

    def __init__(self, address):
        self.address = address

    def __reduce__(self):
        raise TypeError("a connection cannot be pickled")


@pytest.fixture(autouse=True)
def _clean():
    yield
    deregister_serializer(Connection)


def register():
    register_serializer(Connection, serializer=lambda c: c.address, deserializer=Connection)


def test_arguments_and_put(runtime):
    @ray.remote
    def address_of(connection, nested):
        return connection.address + nested["x"].address

    with pytest.raises(TypeError):
        ray.put(Connection("a"))
    register()
    assert ray.get(ray.put(Connection("a"))).address == "a"
    assert ray.get(address_of.remote(Connection("a"), {"x": Connection("b")})) == "ab"


def test_results(runtime):
    @ray.remote
    def connect(address):
        register()
        return Connection(address)

    assert ray.get(connect.remote("somewhere")).address == "somewhere"


def test_deregister(runtime):
    register()
    deregister_serializer(Connection)
    with pytest.raises(TypeError):
        ray.put(Connection("a"))
    deregister_serializer(Connection)


def test_the_check_knows_of_it(runtime, capsys):
    assert not inspect_serializability(Connection("a"))[0]
    register()
    assert inspect_serializability(Connection("a"))[0]


def test_arguments_are_checked():
    with pytest.raises(TypeError, match="class"):
        register_serializer(Connection("a"), serializer=str, deserializer=str)
