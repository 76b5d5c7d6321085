"""Exit statuses, and what a user can do about an error of the system."""

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


def remedy(error: OSError, otherwise: str) -> str:
    """What a user can do about an error of the system: `otherwise` where it is a rare one."""
    return REMEDIES.get(error.errno or 0, otherwise)
