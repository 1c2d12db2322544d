"""The worker's side of `mltoolkit.tune.optuna`: an objective in a thread, and a trial that asks the driver."""

from __future__ import annotations

import functools
import queue
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mltoolkit import ObjectRef

__all__ = ["Answer", "Outcome", "Request", "Worker"]

# What would run a second loop over the study, or hand out objects that live in the driver alone.
_DRIVER_ONLY = frozenset({"ask", "optimize", "tell"})


@dataclass(frozen=True)
class Request:
    """Something the objective wants of the trial or the study, which live in the driver.

    Attributes
    ----------
    target : {'trial', 'study'}
    name : str
        Method or attribute.
    args : tuple or None
        Arguments of the method; None reads the attribute.
    kwargs : dict
    """

    target: Literal["trial", "study"]
    name: str
    args: tuple[Any, ...] | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What the driver replies: a value, or an error to raise where the objective asked."""

    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True)
class Outcome:
    """How an objective ended.

    Attributes
    ----------
    value : object
        What it returned.
    error : BaseException or None
        What it raised; its traceback in this process is added to it as a note.
    """

    value: Any = None
    error: BaseException | None = None


class Worker:
    """Actor that runs one objective after another, each up to its next request or its end.

    Parameters
    ----------
    objective : list of one ObjectRef
        The objective, in a list so that it is fetched here and what fails then is the caller's to see.
    """

    def __init__(self, objective: list[ObjectRef]) -> None:
        self._objective = objective
        self._function: Callable[[Any], Any] | None = None
        self._events: queue.SimpleQueue[Request | Outcome] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()

    def prepare(self) -> None:
        """Fetch the objective."""
        import mltoolkit

        self._function = mltoolkit.get(self._objective[0])

    def start(self, number: int) -> Request | Outcome:
        """Begin the trial of this number; return its first request, or its outcome."""
        threading.Thread(target=self._run, args=(number,), name=f"optuna trial {number}", daemon=True).start()
        return self._events.get()

    def resume(self, answer: Answer) -> Request | Outcome:
        """Let the objective go on with an answer; return its next request, or its outcome."""
        self._answers.put(answer)
        return self._events.get()

    def _run(self, number: int) -> None:
        try:
            if self._function is None:
                self.prepare()
            assert self._function is not None
            outcome = Outcome(value=self._function(_trial_type()(number, self._ask)))
        except BaseException as error:  # the driver decides what ends the study
            outcome = Outcome(error=_portable(error))
        self._events.put(outcome)

    def _ask(self, request: Request) -> Any:
        self._events.put(request)
        answer = self._answers.get()
        if answer.error is not None:
            raise answer.error
        return answer.value


def _portable(error: BaseException) -> BaseException:
    """The error with its traceback as a note; one that cannot be pickled becomes a RuntimeError that shows it."""
    import cloudpickle

    text = "".join(traceback.format_exception(error)).rstrip()
    try:
        copy = cloudpickle.loads(cloudpickle.dumps(error))
        faithful = type(copy) is type(error)
    except Exception:
        faithful = False
    portable = error if faithful else RuntimeError(f"{type(error).__name__}: {error}")
    portable.add_note(f"Raised by the objective in a worker process:\n{text}")
    return portable


def _forwarded(target: Literal["trial", "study"], name: str, member: Any) -> Any:
    """A property or method of the same name and documentation that asks the driver."""
    if isinstance(member, property):

        def read(self: Any) -> Any:
            return self._ask(Request(target, name))

        return property(read, doc=member.__doc__)

    @functools.wraps(member)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._ask(Request(target, name, args, kwargs))

    return call


def _forwarding_type(target: Literal["trial", "study"], base: type, own: dict[str, Any]) -> type:
    # Made from whatever the installed Optuna has: an objective finds each method that it would find there.
    members = {
        name: _forwarded(target, name, getattr(base, name))
        for name in dir(base)
        if not name.startswith("_") and (callable(getattr(base, name)) or isinstance(getattr(base, name), property))
    }
    return type(f"Remote{base.__name__}", (base,), {**members, **own, "__module__": __name__})


@functools.cache
def _trial_type() -> type:
    """`optuna.Trial`, with all that it does done by the driver."""
    import optuna

    def init(self: Any, number: int, ask: Callable[[Request], Any]) -> None:
        self.__dict__.update(_number=number, _ask=ask)

    def missing(self: Any, name: str) -> Any:
        raise AttributeError(
            f"`trial.{name}` is not available in a worker process, whose trial is a proxy of the driver's. Available: "
            f"{', '.join(member for member in dir(optuna.Trial) if not member.startswith('_'))}, study."
        )

    own = {
        "__init__": init,
        "__getattr__": missing,
        "number": property(lambda self: self._number),
        "study": property(lambda self: _study_type()(self._ask)),
    }
    return _forwarding_type("trial", optuna.Trial, own)


@functools.cache
def _study_type() -> type:
    """`optuna.Study` as an objective sees it: reading, `stop`, attributes and queueing of trials."""
    import optuna

    def init(self: Any, ask: Callable[[Request], Any]) -> None:
        self.__dict__.update(_ask=ask)

    def missing(self: Any, name: str) -> Any:
        if name.startswith("_") or name in ("sampler", "pruner"):
            raise AttributeError(
                f"`study.{name}` is not available in a worker process: the study lives in the driver, and only its "
                "public methods and values reach an objective."
            )
        return self._ask(Request("study", name))

    def refused(name: str) -> Callable[..., Any]:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError(f"`study.{name}` cannot be called by an objective: the driver runs the study's loop.")

        return call

    own = {"__init__": init, "__getattr__": missing, "__getstate__": lambda self: self.__dict__}
    own.update((name, refused(name)) for name in _DRIVER_ONLY)
    return _forwarding_type("study", optuna.Study, own)
