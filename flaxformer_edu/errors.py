"""The one exception for wrong input, the check that models and layers make at their door, exit statuses, remedies."""

import errno

WRONG_INPUT, UNFORESEEN, INTERRUPTED, BROKEN_PIPE = 2, 70, 130, 141  # 70 as in sysexits.h, the last two as in shells

REMEDIES = {
    errno.ENOSPC: "free some space, or choose a place on another disk",
    errno.EDQUOT: "free some space, or choose a place on another disk",
    errno.EFBIG: "a limit on the size of files is reached: raise it, by `ulimit -f unlimited`",
    errno.EIO: "the device has a fault or is gone, so choose a place on another one",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a part of its path is a file, so choose another place",
    errno.EEXIST: "a part of its path is a file, so choose another place",
    errno.EISDIR: "it is a folder, so choose a file",
    errno.ELOOP: "it is a link that leads to itself, so choose another place",
    errno.EMFILE: "too many files are open: allow more, by `ulimit -n 4096`",
}


class InputError(ValueError):
    """Something the caller handed in cannot work.

    The message says what was given, what was expected and what to do; commands print it alone, without a traceback.
    """


def check_shape(name: str, shape: tuple[int, ...], axes: str, **sizes: int | None) -> None:
    """Raise InputError unless `shape` has the axes named in `axes`, those in `sizes` (where not None) being that long.

    >>> check_shape("images", (2, 32, 32, 3), "batch height width channel", channel=3)
    """
    names = axes.split()
    wanted = [sizes.get(axis) for axis in names]
    if len(shape) == len(names) and all(size in (None, given) for size, given in zip(wanted, shape, strict=True)):
        return
    expected = ", ".join(axis if size is None else f"{axis}={size}" for axis, size in zip(names, wanted, strict=True))
    raise InputError(f"{name} has shape {tuple(shape)}, expected ({expected})")


def remedy(error: OSError, otherwise: str) -> str:
    """What a user can do about an error of the system: `otherwise` where it is a rare one."""
    return REMEDIES.get(error.errno or 0, otherwise)
