"""Registration of the backend with joblib."""

from __future__ import annotations


def register_ray() -> None:
    """Make ``"mltoolkit"`` and ``"ray"`` known to joblib.

    Afterwards ``joblib.parallel_config("mltoolkit")``, ``joblib.parallel_backend("ray")`` and ``Parallel(backend=...)``
    run on mltoolkit. Nothing starts until the first ``Parallel`` call, which calls ``init`` if nobody has. Calling this
    twice does no harm.

    Options of the backend, given to ``parallel_config``, ``parallel_backend`` or ``Parallel``:

    ``ray_remote_args`` : dict, optional
        Options of the tasks: ``{"num_cpus": 2}`` gives each batch two CPUs, which its BLAS threads and nested
        ``Parallel`` calls may use; also ``num_gpus``, ``memory``, ``resources``, ``scheduling_strategy``,
        ``runtime_env``.
    ``progress`` : bool, default=False
        Show a progress bar on stderr, also where ``n_jobs=1``.
    ``inner_max_num_threads`` : int, optional
        BLAS and OpenMP threads of each batch; by default as many as it has CPUs.

    Of joblib's own options, `max_nbytes` is the size from which an array travels through shared memory, once per
    ``Parallel`` call, and is read-only in the tasks; `max_nbytes=None` or `mmap_mode=None` gives each batch a writable
    copy through its message, ``mmap_mode="c"`` a writable private copy of the shared array.

    Raises
    ------
    ImportError
        If joblib is not installed.
    """
    try:
        from joblib.parallel import register_parallel_backend
    except ImportError as error:
        raise ImportError(
            'The joblib backend needs joblib, which is not installed. Run `pip install "mltoolkit[sklearn]"`.'
        ) from error
    from mltoolkit.util.joblib._backend import MltoolkitBackend

    for name in ("mltoolkit", "ray"):
        register_parallel_backend(name, MltoolkitBackend)
