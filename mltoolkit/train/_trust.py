"""Pickles from disk: reading one runs the code in it, so only files that nobody else could have written are read."""

from __future__ import annotations

import os
import pickle
import stat
from pathlib import Path
from typing import IO, Any

__all__ = ["UntrustedFileError", "check_trusted", "dump_pickle", "load_pickle"]

_ROOT = 0


class UntrustedFileError(PermissionError):
    """A pickle is not read, since somebody else could have written it."""


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """Read a pickle that only the current user could have written.

    Reading a pickle runs what it says. A file is therefore refused if it, or the folder it lies in, belongs to another
    user or may be written by one. The superuser's count as one's own: it could change the program as well. So does a
    group of one's own name without other members, which many systems give each user.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    object

    Raises
    ------
    UntrustedFileError
        If another user owns the file or its folder or may write there; file, owner and remedy are named.
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is cut off or no pickle.
    """
    with open(path, "rb") as file:
        check_trusted(path, file)
        try:
            return pickle.load(file)
        except (EOFError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"{os.fspath(path)} is cut off or not a pickle ({error}). It was not written to its end; "
                "use an earlier one."
            ) from error


def dump_pickle(value: Any, path: str | os.PathLike[str]) -> None:
    """Write a pickle so that :func:`load_pickle` will read it: all or nothing, and for the owner's eyes alone.

    Parameters
    ----------
    value : object
        Anything that cloudpickle takes.
    path : str or path
    """
    import cloudpickle

    payload = cloudpickle.dumps(value)
    path = Path(path)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    # A umask of 002, usual in places, would make a file that others may write.
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(payload)
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def check_trusted(path: str | os.PathLike[str], file: IO[bytes]) -> None:
    """Raise unless nobody but the current user could have written an open file.

    Parameters
    ----------
    path : str or path
        Where it was opened.
    file : file
        The open file: what is checked is what will be read.
    """
    path = os.path.abspath(path)
    _check(path, os.fstat(file.fileno()), "file")
    for folder in dict.fromkeys((os.path.dirname(path), os.path.dirname(os.path.realpath(path)))):
        _check(folder, os.stat(folder), "folder")


def _check(path: str, status: os.stat_result, kind: str) -> None:
    user = os.geteuid()
    if status.st_uid not in (user, _ROOT):
        raise UntrustedFileError(
            f"The {kind} {path} belongs to user {_user_name(status.st_uid)}, not to {_user_name(user)}. Reading a "
            f"pickle runs the code in it. If you trust its owner, make your own copy with `cp -r` and read that."
        )
    # In a sticky folder such as /tmp all may add files, but only owners replace theirs.
    if kind == "folder" and status.st_mode & stat.S_ISVTX:
        return
    if status.st_mode & stat.S_IWOTH:
        who = "all users"
    elif status.st_mode & stat.S_IWGRP and not _is_own_group(status.st_gid, user):
        who = f"group {_group_name(status.st_gid)}"
    else:
        return
    raise UntrustedFileError(
        f"The {kind} {path}, which belongs to user {_user_name(status.st_uid)}, may be written by {who}. Reading a "
        f"pickle runs the code in it. If you trust what is there, run `chmod go-w {path}`."
    )


def _is_own_group(gid: int, user: int) -> bool:
    """Whether a group is the user's private one: of the same name, and with no other members."""
    import grp
    import pwd

    try:
        account, group = pwd.getpwuid(user), grp.getgrgid(gid)
    except KeyError:
        return False
    return account.pw_gid == gid and group.gr_name == account.pw_name and set(group.gr_mem) <= {account.pw_name}


def _user_name(uid: int) -> str:
    import pwd

    try:
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    import grp

    try:
        return f"{grp.getgrgid(gid).gr_name} ({gid})"
    except KeyError:
        return str(gid)
