"""What goes wrong with environments.

::

    EnvError
    ├── UnknownEnvError          (also ValueError)    no environment of that name
    ├── EnvCreationError                              the constructor or the env_config function raised
    ├── UnsupportedSpaceError    (also ValueError)    an observation or action space that cannot be learned on
    ├── UnsupportedEnvError      (also TypeError)     a multi-agent environment, or no environment at all
    ├── EnvResetError                                 the environment raised in `reset`
    ├── EnvStepError                                  the environment raised in `step`
    ├── EnvRenderError                                it cannot be shown
    └── InvalidEnvResultError    (also ValueError)    `reset` or `step` returned what it must not
        ├── InvalidObservationError
        └── InvalidRewardError
"""

from __future__ import annotations

import os
import traceback

__all__ = [
    "EnvCreationError",
    "EnvError",
    "EnvRenderError",
    "EnvResetError",
    "EnvStepError",
    "InvalidEnvResultError",
    "InvalidObservationError",
    "InvalidRewardError",
    "UnknownEnvError",
    "UnsupportedEnvError",
    "UnsupportedSpaceError",
    "describe_cause",
]

_FRAMES_SHOWN = 4


class EnvError(Exception):
    """An environment does not do what it must.

    Parameters
    ----------
    message : str
    env_index : int, optional
        Which environment of a vector.
    step : int, optional
        How many steps its episode had seen; 0 in a reset.
    """

    def __init__(self, message: str = "", *, env_index: int | None = None, step: int | None = None) -> None:
        super().__init__(message)
        self.env_index = env_index
        self.step = step


class UnknownEnvError(EnvError, ValueError):
    """No environment is known by this name."""


class EnvCreationError(EnvError):
    """The environment could not be made; what it raised is the cause."""


class UnsupportedSpaceError(EnvError, ValueError):
    """An observation or action space that no policy here can work with."""


class UnsupportedEnvError(EnvError, TypeError):
    """No environment, or one of a kind that is not supported."""


class EnvResetError(EnvError):
    """The environment raised in ``reset``; what it raised is the cause."""


class EnvStepError(EnvError):
    """The environment raised in ``step``; what it raised is the cause."""


class EnvRenderError(EnvError):
    """The environment gives no picture of itself."""


class InvalidEnvResultError(EnvError, ValueError):
    """``reset`` or ``step`` returned something else than the environment API asks for."""


class InvalidObservationError(InvalidEnvResultError):
    """An observation of another shape or type, outside its space, or not finite."""


class InvalidRewardError(InvalidEnvResultError):
    """A reward that is not a finite number."""


def describe_cause(error: BaseException) -> str:
    """What was raised, and the innermost lines of code that led there.

    A chained exception shows its whole traceback only where it was raised; text travels everywhere.

    Examples
    --------
    >>> try:
    ...     {}["speed"]
    ... except KeyError as error:
    ...     print(describe_cause(error).splitlines()[0])
    KeyError: 'speed'
    """
    lines = ["".join(traceback.format_exception_only(error)).strip()]
    frames = traceback.extract_tb(error.__traceback__)
    while len(frames) > 1 and os.path.dirname(frames[0].filename) == os.path.dirname(__file__):
        del frames[0]  # the way from here to the user's code
    for frame in frames[-_FRAMES_SHOWN:]:
        lines.append(f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}')
        if frame.line:
            lines.append(f"    {frame.line}")
    return "\n".join(lines)
