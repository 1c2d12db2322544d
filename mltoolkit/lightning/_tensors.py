"""Tensors on their way between processes: their bytes go through shared memory, once each."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mltoolkit.util import deregister_serializer, register_serializer

__all__ = ["PackedTensor", "pack", "shared_storages", "unpack", "unpack_into"]


@dataclass(frozen=True)
class PackedTensor:
    """A dense tensor's bytes, and what they mean."""

    data: Any
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the tensor."""
        return int(self.data.nbytes)

    def view(self) -> Any:
        """The tensor, on memory that must not be written."""
        import warnings

        import torch

        if not self.data.nbytes:
            return torch.empty(self.shape, dtype=getattr(torch, self.dtype))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch has no read-only tensors and warns of such memory
            flat = torch.from_numpy(self.data)
        return flat.view(getattr(torch, self.dtype)).view(self.shape)


def pack(value: Any) -> Any:
    """Replace the tensors in dicts, lists and tuples by their bytes."""
    import torch

    if isinstance(value, torch.Tensor):
        tensor = value.detach()
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.dtype.is_complex:
            return tensor.cpu()  # rare, and pickled as it is
        flat = tensor.cpu().contiguous().view(-1)
        return PackedTensor(flat.view(torch.uint8).numpy(), str(value.dtype).removeprefix("torch."), tuple(value.shape))
    if isinstance(value, dict):
        packed = {key: pack(each) for key, each in value.items()}
        return packed if type(value) is dict else _like(value, packed)
    if isinstance(value, (list, tuple)):
        items = [pack(each) for each in value]
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*items)
        return items if type(value) is list else tuple(items) if type(value) is tuple else value
    return value


def unpack(value: Any) -> Any:
    """Undo :func:`pack`, on memory of the process' own."""
    if isinstance(value, PackedTensor):
        return value.view().clone()
    if isinstance(value, dict):
        unpacked = {key: unpack(each) for key, each in value.items()}
        return unpacked if type(value) is dict else _like(value, unpacked)
    if isinstance(value, (list, tuple)):
        items = [unpack(each) for each in value]
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*items)
        return items if type(value) is list else tuple(items) if type(value) is tuple else value
    return value


def unpack_into(packed: dict[str, Any], module: Any) -> list[str]:
    """Load a packed state dict into a module, straight from shared memory.

    Returns
    -------
    list of str
        Names that the module does not have.
    """
    state = {name: each.view() if isinstance(each, PackedTensor) else each for name, each in packed.items()}
    return list(module.load_state_dict(state, strict=False).unexpected_keys)


def _like(original: Any, items: dict[Any, Any]) -> Any:
    try:
        return type(original)(items)
    except Exception:
        return items


class _Shared:
    """A storage's bytes, once however many tensors look into it."""

    def __init__(self, storage: Any) -> None:
        import numpy as np
        import torch

        self._storage = storage  # keeps the address from being used again
        if storage.nbytes():
            flat = torch.tensor([], dtype=torch.uint8).set_(storage)
            self.data = flat.numpy()
        else:
            self.data = np.empty(0, dtype=np.uint8)
        self._loaded: Any = None

    def __getstate__(self) -> Any:
        return {"data": self.data}

    def storage(self) -> Any:
        """The bytes as a storage of this process' own, the same one each time."""
        import warnings

        import torch

        loaded = self.__dict__.get("_loaded")
        if loaded is None:
            loaded = torch.UntypedStorage(self.data.nbytes)
            if self.data.nbytes:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    torch.tensor([], dtype=torch.uint8).set_(loaded).copy_(torch.from_numpy(self.data))
            self._loaded = loaded
        return loaded


def _load(given: tuple[_Shared | bytes, Any]) -> Any:
    import torch

    shared, dtype = given
    if isinstance(shared, bytes):
        return torch.storage._load_from_bytes(shared)
    return torch.storage.TypedStorage(wrap_storage=shared.storage(), dtype=dtype, _internal=True)


_one_at_a_time = threading.Lock()


@contextmanager
def shared_storages() -> Iterator[None]:
    """Within it, what is put into the object store has the bytes of its CPU tensors beside the pickle, each once.

    torch itself pickles the whole storage for every tensor that looks into it, in the stream.
    """
    import io

    import torch

    seen: dict[int, _Shared] = {}

    def dump(typed: Any) -> tuple[_Shared | bytes, Any]:
        storage = typed._untyped_storage
        if storage.device.type != "cpu":
            buffer = io.BytesIO()
            torch.save(typed, buffer, _use_new_zipfile_serialization=False)
            return buffer.getvalue(), typed.dtype
        shared = seen.get(storage.data_ptr()) if storage.nbytes() else None
        if shared is None:
            shared = _Shared(storage)
            seen[storage.data_ptr()] = shared
        return shared, typed.dtype

    with _one_at_a_time:
        register_serializer(torch.storage.TypedStorage, serializer=dump, deserializer=_load)
        try:
            yield
        finally:
            deregister_serializer(torch.storage.TypedStorage)
