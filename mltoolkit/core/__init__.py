"""The runtime. Every line that knows Dask's internals lives below this package.

The layers, each of which knows only those above it in this list:

``ids``, ``serialization``, ``store``, ``channel``   values, shared memory, framed messages
``zygote``, ``executor``, ``worker_backend``         what runs in the fork server and in executor processes
``reactor``, ``node``                                one I/O thread; the executors of one host
``objects``, ``ledger``, ``placement``               pure state: references, resources, who runs where
``tasks``, ``actors``, ``head``                      the session's control plane, in the driver
``dask_cluster``                                     nodes that are Dask workers
``api``, ``remote_function``, ``actor``              what the facade re-exports
"""
