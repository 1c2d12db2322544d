"""Tables as LightGBM takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mltoolkit._optional import require

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["normalize_pandas_for_lightgbm"]


def normalize_pandas_for_lightgbm(df: pd.DataFrame) -> pd.DataFrame:
    """Give columns that pandas holds as Arrow arrays the types of pandas' own, which LightGBM takes.

    Parameters
    ----------
    df : DataFrame

    Returns
    -------
    DataFrame
        Numbers and truth values in Arrow arrays are pandas' nullable ones; all other columns are as they were.

    Examples
    --------
    >>> import pandas
    >>> normalize_pandas_for_lightgbm(pandas.DataFrame({"x": [1.5, 2.5]})).dtypes["x"]
    dtype('float64')
    """
    pandas = require("pandas", purpose="normalize_pandas_for_lightgbm()", extra="lightgbm")
    kinds = {"i": "Int", "u": "UInt", "f": "Float"}
    changed = {}
    for name, dtype in df.dtypes.items():
        if not isinstance(dtype, pandas.ArrowDtype):
            continue
        if dtype.kind in kinds:
            changed[name] = f"{kinds[dtype.kind]}{8 * dtype.itemsize}"
        elif dtype.kind == "b":
            changed[name] = "boolean"
    return df.astype(changed) if changed else df
