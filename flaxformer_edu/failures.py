"""What can go wrong in a program without anybody's fault in it, as a line with the remedy; and a report of the rest."""

import os
import sys

from flaxformer_edu.errors import InputError
from flaxformer_edu.remedies import BROKEN_PIPE, REMEDIES, UNFORESEEN, WRONG_INPUT, remedy

# What libraries say in exceptions of their own kinds; what it means.
SAID_BY_LIBRARIES = {
    "No space left on device": "a disk is full: free some space, or choose a place on another disk",
    "Disk quota exceeded": "your share of a disk is full: free some space, or choose a place on another disk",
    "futures but timed out after": "a save took too long, by a clock that may have been put forward: start it again",
    "Too many open files": "too many files are open: allow more, by `ulimit -n 4096`",
    "Unable to initialize backend": "JAX finds no such device: set JAX_PLATFORMS to one that is here, or to cpu",
    "RESOURCE_EXHAUSTED": "out of memory: choose a smaller batch, smaller or fewer inputs, or a smaller model",
    "Could not determine home directory": "there is no home folder: set HOME to one",
}
LONGEST_QUOTE = 200  # characters of another's message that are shown


def explain(error: BaseException) -> tuple[str, int]:
    """The line to say of it, or nothing, and the exit status."""
    if isinstance(error, BrokenPipeError):  # of `| head`, which has seen enough
        return "", BROKEN_PIPE
    foreseen = _foreseen(error)
    return (foreseen, WRONG_INPUT) if foreseen else (_unforeseen(error), UNFORESEEN)


def _foreseen(error: BaseException) -> str | None:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"{SAID_BY_LIBRARIES['RESOURCE_EXHAUSTED']} ({_quoted(error) or 'none is left'})"
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return f"{error.object!r:.{LONGEST_QUOTE}} is not UTF-8, which a library needs: give it another name"
    if isinstance(error, OSError):
        if error.filename is not None:
            advice = remedy(error, "check its name, and that you may use it")
            return f"{os.fsdecode(error.filename)} cannot be used ({error.strerror}): {advice}"
        if error.errno in REMEDIES:
            return f"standard output, or a file, cannot be written ({error.strerror}): {REMEDIES[error.errno]}"
        if isinstance(error, FileNotFoundError):  # raised with a message of its own
            return str(error)
    told = " ".join(map(str, _chain(error)))
    for said, meaning in SAID_BY_LIBRARIES.items():
        if said in told:
            return f"{meaning} ({_quoted(error)})"
    if _no_device():
        return f"{SAID_BY_LIBRARIES['Unable to initialize backend']} (it is {os.environ['JAX_PLATFORMS']})"
    return None


def _chain(error: BaseException | None) -> list[BaseException]:
    """The error, and those it came of."""
    chain = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _no_device() -> bool:
    """Whether JAX cannot open what JAX_PLATFORMS names: for some that are not there it only fails an assertion."""
    if "JAX_PLATFORMS" not in os.environ or "jax" not in sys.modules:
        return False
    try:
        sys.modules["jax"].devices()
    except Exception:
        return True
    return False


def _unforeseen(error: BaseException) -> str:
    line = f"{type(error).__name__}: {_quoted(error)}" if str(error) else type(error).__name__
    try:
        return f"{line} (a fault of this program; please report it with the file {_write_report(error)})"
    except Exception:  # no folder can be written to, or no memory is left
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}" if trace is not None else "nowhere"
        return f"{line} (a fault of this program, at {place}; no report of it could be written)"


def _write_report(error: BaseException) -> str:
    """The file with the traceback, and what else helps to find the fault."""
    import platform
    import tempfile
    import traceback
    from importlib.metadata import version

    packages = {name: version(name) for name in ("flaxformer-edu", "jax", "jaxlib", "flax", "numpy")}
    settings = {name: value for name, value in os.environ.items() if name.startswith(("JAX_", "XLA_", "NNX_"))}
    lines = [
        f"command: {sys.argv}",
        f"system: Python {platform.python_version()}, {platform.platform()}",
        f"packages: {packages}",
        f"settings: {settings}",
        "",
        *traceback.format_exception(error),
    ]
    number, path = tempfile.mkstemp(prefix="flaxformer-edu-", suffix=".txt")
    with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write("\n".join(lines))
    return path


def _quoted(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= LONGEST_QUOTE else text[:LONGEST_QUOTE] + "..."
