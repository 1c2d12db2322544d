"""The runtime. Every line that knows Dask's internals lives below this package.

The layers, each of which knows only those above it in this list:

``ids``, ``store``, ``serialization``, ``channel``, ``waiting``   values, shared memory, framed messages, threads that wait
``host``, ``modules``, ``deaths``, ``process_setup``              what a host grants, what a process has loaded, how it died
``zygote``, ``executor``, ``inbox``, ``actor_runner``             the fork server, and the processes that run user code
``worker_backend``                                                the public API inside an executor
``reactor``, ``node``                                             one I/O thread; the executors of one host
``ledger``, ``objects``, ``options``, ``specs``, ``submission``   pure state: resources, references, what is to run
``pool``, ``tasks``, ``actors``, ``groups``, ``requests``         the parts of the head
``head``                                                          the session's control plane, in the driver
``session``, ``embedded_dask``                                    an embedded session: one node inside the driver
``attached``, ``remote_node``, ``dask_node``                      a session whose nodes are Dask workers
``local_mode``, ``local_executor``, ``memory_store``              everything inline, for debuggers
``remote_function``, ``actor``, ``lifecycle``, ``api``            what the facade re-exports
"""
