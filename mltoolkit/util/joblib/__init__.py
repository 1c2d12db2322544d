"""mltoolkit as a joblib backend: everything that uses joblib, scikit-learn above all, runs on tasks.

>>> import joblib
>>> from mltoolkit.util.joblib import register_ray
>>> register_ray()
>>> with joblib.parallel_config("mltoolkit"):  # doctest: +SKIP
...     GridSearchCV(estimator, param_grid).fit(X, y)

``"ray"`` and ``"mltoolkit"`` name the same backend. The modules, from the outside in: ``_register`` (the names),
``_backend`` (joblib's contract), ``_call`` (one ``Parallel`` call: what runs when), ``_sizing`` (how many calls make a
task), ``_window`` (how far a generator may run ahead), ``_sharing`` (large arrays), ``_worker`` (the task itself),
``_nested`` (``Parallel`` inside a task), ``_progress``, ``_errors``.
"""

from mltoolkit.util.joblib._errors import CallLostError, RemoteTraceback
from mltoolkit.util.joblib._register import register_ray

__all__ = ["CallLostError", "RemoteTraceback", "register_ray"]
