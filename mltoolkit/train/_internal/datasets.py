"""Which part of a dataset each worker gets."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import mltoolkit

__all__ = ["DataConfig", "split_dataset"]


class DataConfig:
    """Which datasets of a trainer are split between its workers.

    Parameters
    ----------
    datasets_to_split : 'all' or list of str, default='all'
        Names of the datasets of which each worker gets its part; it gets the others as a whole.

    Examples
    --------
    >>> DataConfig(datasets_to_split=["train"]).splits("valid")
    False
    """

    def __init__(self, datasets_to_split: str | Sequence[str] = "all", **unsupported: Any) -> None:
        if unsupported:
            raise NotImplementedError(
                f"`DataConfig` takes `datasets_to_split` alone, got {', '.join(sorted(unsupported))} too: how a dataset is "
                "read is set on the dataset."
            )
        if datasets_to_split != "all" and (
            isinstance(datasets_to_split, str) or not all(isinstance(name, str) for name in datasets_to_split)
        ):
            raise TypeError(
                f"`datasets_to_split` must be 'all' or a list of names of datasets, got {datasets_to_split!r}."
            )
        self.datasets_to_split: str | list[str] = (
            "all" if isinstance(datasets_to_split, str) else list(datasets_to_split)
        )

    def splits(self, name: str) -> bool:
        """Whether the dataset of a name is split."""
        return self.datasets_to_split == "all" or name in self.datasets_to_split

    def shards(self, datasets: Mapping[str, Any], num_workers: int) -> list[dict[str, Any]]:
        """The datasets of each worker, as references to values in the object store."""
        if self.datasets_to_split != "all":
            unknown = [name for name in self.datasets_to_split if name not in datasets]
            if unknown:
                raise ValueError(
                    f"`datasets_to_split` names {unknown[0]!r}, and there is no dataset of that name. "
                    f"There are: {', '.join(datasets) or 'none'}."
                )
        shards: list[dict[str, Any]] = [{} for _ in range(num_workers)]
        for name, dataset in datasets.items():
            if self.splits(name) and num_workers > 1:
                parts = [mltoolkit.put(part) for part in split_dataset(dataset, num_workers, name)]
            else:
                parts = [mltoolkit.put(_made(dataset))] * num_workers
            for shard, part in zip(shards, parts, strict=True):
                shard[name] = part
        return shards


def split_dataset(dataset: Any, count: int, name: str = "train") -> list[Any]:
    """Parts of equal length; what does not divide evenly is left out, as workers must take equally many steps.

    Parameters
    ----------
    dataset : sequence, array, tensor, table, torch dataset or callable
        A callable is called for the dataset. Dicts and tuples of arrays of equal length are split alike.
    count : int
    name : str
        For errors.

    Returns
    -------
    list
        Of the dataset's own kind; a map-style torch dataset gives ``torch.utils.data.Subset``.

    Raises
    ------
    TypeError
        If it is of a kind that has no parts, such as an iterator.
    ValueError
        If there are fewer rows than workers.

    Examples
    --------
    >>> split_dataset(list(range(7)), 2)
    [[0, 1, 2], [3, 4, 5]]
    """
    dataset = _made(dataset)
    if hasattr(dataset, "streaming_split"):  # datasets with a notion of parts of their own
        return list(dataset.streaming_split(count, equal=True))
    if hasattr(dataset, "shard") and hasattr(dataset, "features"):  # Hugging Face
        return [dataset.shard(num_shards=count, index=index, contiguous=True) for index in range(count)]
    if isinstance(dataset, Mapping):
        split = {key: split_dataset(value, count, f"{name}[{key!r}]") for key, value in dataset.items()}
        _check_equal({key: len(parts[0]) for key, parts in split.items()}, name)
        return [{key: parts[index] for key, parts in split.items()} for index in range(count)]
    if isinstance(dataset, tuple) and dataset and all(_is_array(each) for each in dataset):
        parts = [split_dataset(each, count, name) for each in dataset]
        _check_equal({str(index): len(each[0]) for index, each in enumerate(parts)}, name)
        return list(zip(*parts, strict=True))
    length = _length(dataset, name)
    if length < count:
        raise ValueError(f"The dataset {name!r} has {length} rows for {count} workers. Use fewer workers.")
    size = length // count
    spans = [slice(index * size, (index + 1) * size) for index in range(count)]
    if hasattr(dataset, "iloc"):
        return [dataset.iloc[span] for span in spans]
    if _is_torch_dataset(dataset):
        from torch.utils.data import Subset

        return [Subset(dataset, range(span.start, span.stop)) for span in spans]
    return [dataset[span] for span in spans]


def _made(dataset: Any) -> Any:
    """The dataset, of a function that makes one."""
    is_maker = callable(dataset) and not hasattr(dataset, "__getitem__") and not hasattr(dataset, "__iter__")
    return dataset() if is_maker else dataset


def _length(dataset: Any, name: str) -> int:
    if isinstance(dataset, (str, bytes)) or not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        kind = type(dataset).__name__
        what = "an iterable without parts" if isinstance(dataset, Iterable) else "no dataset that can be split"
        raise TypeError(
            f"The dataset {name!r} is {what} ({kind}). Give a list, an array, a tensor, a table, a map-style torch dataset, "
            "or a dict of those; or open the data in the training function, which knows its part by "
            f"`train.get_context().get_world_rank()`. To give all of it to each worker: "
            f"`dataset_config=train.DataConfig(datasets_to_split=[])`."
        )
    return len(dataset)


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "__getitem__")


def _is_torch_dataset(dataset: Any) -> bool:
    data = sys.modules.get("torch.utils.data")  # not imported for its sake: whoever has such a dataset has it
    return data is not None and isinstance(dataset, data.Dataset)


def _check_equal(lengths: Mapping[str, int], name: str) -> None:
    if len(set(lengths.values())) > 1:
        raise ValueError(f"The parts of the dataset {name!r} have different numbers of rows: {dict(lengths)}.")
