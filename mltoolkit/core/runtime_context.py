"""``get_runtime_context()``: where the running code finds itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mltoolkit.core import task_context
from mltoolkit.core.backend import require_backend

if TYPE_CHECKING:
    from mltoolkit.core.actor import ActorHandle


class RuntimeContext:
    """What the running task, actor or driver can know about itself."""

    @property
    def _backend(self) -> Any:
        return require_backend()

    @property
    def namespace(self) -> str:
        """Namespace of the job."""
        return self._backend.namespace

    @property
    def worker(self) -> Any:
        """The runtime's own object of this process."""
        return self._backend

    def get_job_id(self) -> str:
        """Return the hex id of the job."""
        return getattr(self._backend, "job_id", "01000000")

    def get_node_id(self) -> str:
        """Return the id of the node, as in ``nodes()``."""
        return self._backend.store.node_id

    def get_worker_id(self) -> str:
        """Return an id of this process."""
        import os

        return f"{self.get_node_id()[:24]}{os.getpid():08x}"

    def get_task_id(self) -> str | None:
        """Return the hex id of the running task or call; None in the driver."""
        task_id = task_context.current().task_id
        return task_id.hex() if task_id else None

    def get_task_name(self) -> str | None:
        """Return the name of the running task or call; None in the driver."""
        return task_context.current().name or None

    def get_task_function_name(self) -> str | None:
        """Return the name of the running function; None in the driver."""
        return self.get_task_name()

    def get_actor_id(self) -> str | None:
        """Return the hex id of the actor; None outside one."""
        actor_id = task_context.current().actor_id
        return actor_id.hex() if actor_id else None

    def get_actor_name(self) -> str | None:
        """Return the name that the actor was given; None if it has none or outside one."""
        runner = self._runner()
        return runner.extra.get("name") if runner is not None else None

    def _runner(self) -> Any:
        executor = getattr(self._backend, "executor", None)
        return executor.runner if executor is not None else None

    @property
    def current_actor(self) -> ActorHandle:
        """A handle of the running actor."""
        runner = self._runner()
        if runner is None:
            raise RuntimeError("`current_actor` exists only inside an actor.")
        from mltoolkit.core.actor import rebuild_handle

        return rebuild_handle(runner.actor_id, runner.extra["handle"])

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether the running actor has been restarted."""
        runner = self._runner()
        return bool(runner is not None and runner.extra.get("restarted"))

    def get_assigned_resources(self) -> dict[str, float]:
        """Return what the running task or actor holds."""
        return dict(task_context.current().resources)

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """Return the ids of the GPUs that the running task or actor holds."""
        executor = getattr(self._backend, "executor", None)
        return {"GPU": [str(gpu) for gpu in executor.boot.get("gpus", [])] if executor is not None else []}

    def get_placement_group_id(self) -> str | None:
        """Return the hex id of the placement group that the running code is in."""
        group = task_context.current().placement_group
        return group[0].id if group else None

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether tasks submitted here go into the same placement group."""
        group = task_context.current().placement_group
        return bool(group and group[1])

    def is_canceled(self) -> bool:
        """Return whether the running task or call was cancelled."""
        return task_context.current().cancelled

    def get_runtime_env_string(self) -> str:
        """Return the runtime_env as JSON."""
        import json

        executor = getattr(self._backend, "executor", None)
        if executor is None:
            return json.dumps(getattr(self._backend, "runtime_env", {}))
        env = {}
        if executor.boot.get("environment"):
            env["env_vars"] = executor.boot["environment"]
        if executor.boot.get("working_dir"):
            env["working_dir"] = executor.boot["working_dir"]
        return json.dumps(env)

    @property
    def runtime_env(self) -> dict[str, Any]:
        """The runtime_env as a dict."""
        import json

        return json.loads(self.get_runtime_env_string())

    def get(self) -> dict[str, Any]:
        """Return the main facts as a dict."""
        return {"job_id": self.get_job_id(), "node_id": self.get_node_id(), "namespace": self.namespace}


def get_runtime_context() -> RuntimeContext:
    """Return the context of the running code; starts the runtime if there is none."""
    require_backend()
    return RuntimeContext()
