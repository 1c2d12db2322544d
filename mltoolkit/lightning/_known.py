"""Pickles of objects that refer to trainer, model and parameters, which are there already on the other side."""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cloudpickle

from mltoolkit.lightning._tensors import pack, unpack

__all__ = ["Dumped", "KnownObjects"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dumped:
    """A pickle, and the tensors in it, whose bytes travel beside it."""

    stream: bytes
    tensors: list[Any] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Size of all of it."""
        return len(self.stream) + sum(getattr(each, "nbytes", 0) for each in self.tensors)


class KnownObjects:
    """What both sides have, by name: the trainer, its model with parameters and buffers, strategy and data module.

    Parameters
    ----------
    trainer : Trainer
    with_parameters : bool, default=True
        Whether parameters and buffers are known. Else they arrive without their values, which travel with the model's.
    """

    def __init__(self, trainer: Any, *, with_parameters: bool = True) -> None:
        module = trainer.lightning_module
        self._objects: dict[str, Any] = {
            "trainer": trainer,
            "module": module,
            "strategy": trainer.strategy,
            "datamodule": getattr(trainer, "datamodule", None),
        }
        if module is not None and with_parameters:
            self._objects.update((f"parameter {name}", each) for name, each in module.named_parameters())
            self._objects.update((f"buffer {name}", each) for name, each in module.named_buffers())
        self._names = {id(value): name for name, value in self._objects.items() if value is not None}
        self._with_parameters = with_parameters

    def dump(self, value: Any, what: str) -> Dumped | None:
        """The pickle, or None if it cannot be made; why not is logged."""
        stream = io.BytesIO()
        pickler = _Pickler(stream, self._names, self._with_parameters)
        try:
            pickler.dump(value)
        except Exception as error:
            logger.debug("%s stays on its worker: %s", what, error)
            return None
        return Dumped(stream.getvalue(), pickler.tensors)

    def load(self, dumped: Dumped) -> Any:
        """What was dumped, with this side's objects in it.

        Raises
        ------
        Exception
            Any, if something that it refers to is not here.
        """
        return _Unpickler(io.BytesIO(dumped.stream), self._objects, dumped.tensors).load()


class _Pickler(cloudpickle.Pickler):
    def __init__(self, stream: io.BytesIO, names: Mapping[int, str], with_parameters: bool) -> None:
        super().__init__(stream)
        self._names = names
        self._with_parameters = with_parameters
        self._aside: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no address is used again
        self.tensors: list[Any] = []

    def persistent_id(self, value: Any) -> Any:
        import torch

        name = self._names.get(id(value))
        if name is not None:
            return name
        is_empty = not self._with_parameters and isinstance(value, torch.nn.Parameter)
        if not is_empty and not _is_plain(value):
            return None
        number = self._aside.get(id(value))
        if number is None:
            number = self._aside[id(value)] = len(self._kept)
            self._kept.append(value)
            shape = (tuple(value.shape), value.dtype, value.requires_grad)
            self.tensors.append(_EmptyParameter(*shape) if is_empty else pack(value))
        return number


@dataclass
class _EmptyParameter:
    shape: tuple[int, ...]
    dtype: Any
    requires_grad: bool

    def made(self) -> Any:
        import torch

        return torch.nn.Parameter(torch.empty(self.shape, dtype=self.dtype), requires_grad=self.requires_grad)


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, objects: Mapping[str, Any], tensors: list[Any]) -> None:
        super().__init__(stream)
        self._objects = objects
        self._tensors = tensors
        self._loaded: dict[int, Any] = {}

    def persistent_load(self, key: Any) -> Any:
        if isinstance(key, str):
            return self._objects[key]
        if key not in self._loaded:
            packed = self._tensors[key]
            self._loaded[key] = packed.made() if isinstance(packed, _EmptyParameter) else unpack(packed)
        return self._loaded[key]


def _is_plain(value: Any) -> bool:
    """Whether a tensor is all that its memory holds, and no part of a graph: its bytes are then all of it."""
    import torch

    return (
        type(value) is torch.Tensor
        and value.layout == torch.strided
        and not value.requires_grad
        and not value.is_quantized
        and not value.dtype.is_complex
        and not value.is_conj()
        and value._base is None
        and value.device.type == "cpu"
        and value.untyped_storage().nbytes() == value.nbytes
    )
