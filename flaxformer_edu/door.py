"""The door through which every program here ends: one line for whatever went wrong, and an exit status.

`import flaxformer_edu` opens it, before anything else, in a process that is one of our programs: the command, or
`python -m` of a recipe or a benchmark. In a program that merely imports the package nothing is touched. What a user can
cause, and the line for it, is in `failures.py`. Imports here are light: until they are done, as while Python itself
starts, Ctrl-C is a traceback.
"""

# The same functions; `signal` itself imports enum, which takes as long as all that is imported here.
import _signal as signal  # pyright: ignore[reportMissingImports]
import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType

from flaxformer_edu.remedies import INTERRUPTED, WRONG_INPUT

PROGRAMS = ("flaxformer_edu", "train", "benchmarks")
IMPORTING = "<frozen importlib"  # the file of the interpreter's functions that import
SHOW_CURSOR = b"\x1b[?25h"  # which progress bars hide

_interrupts = 0  # how often Ctrl-C was pressed


def is_program() -> bool:
    """Whether this process is one of our programs, as far as is known while its first module is being imported."""
    name = sys.argv[0] if sys.argv else ""
    if name == "-m":  # so it reads while Python looks for the module to run
        return any(word.removeprefix("-m").split(".")[0] in PROGRAMS for word in sys.orig_argv[1:])
    return os.path.splitext(os.path.basename(name))[0] == "flaxformer-edu"  # noqa: PTH119, PTH122 (pathlib is not light)


def watch() -> None:
    """From now on nothing ends this process with a traceback. To be called once, as early as can be."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background jobs ignore it
        signal.signal(signal.SIGINT, _on_interrupt)
    sys.excepthook = _on_exception
    sys.unraisablehook = _on_unraisable
    _open_streams()
    atexit.register(_flush)  # the first to be registered is the last to run


def through(program: Callable[[], int | None]) -> None:
    """Run the program and exit with the status that it returns; with one line and the status for it where it fails."""
    try:
        status = program()
    except Exception as error:
        status = _ended_by(error)
    except KeyboardInterrupt as error:
        status = _ended_by(error)
    sys.exit(status or 0)


def say(message: str) -> None:
    """Print an error's message on standard error, with what cannot be printed as escapes; never raises."""
    text = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
    label = "\x1b[31merror:\x1b[0m" if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else "error:"
    with suppress(OSError, ValueError):  # where nobody listens
        print(label, text, file=sys.stderr, flush=True)


def leave(message: str, status: int) -> None:
    """End the process at once, without running what would run at its end, and leave no half-written file behind."""
    files = sys.modules.get("flaxformer_edu.files")
    if discard := getattr(files, "discard_drafts", None):
        discard()
    if "rich" in sys.modules and os.isatty(2):
        os.write(2, SHOW_CURSOR)
    if message:
        say(message)
    os._exit(status)


def _ended_by(error: BaseException) -> int:
    """Say what went wrong; the exit status."""
    if _interrupts or isinstance(error, KeyboardInterrupt):  # an import makes an ImportError of it, XLA its own
        say("interrupted")
        return INTERRUPTED
    from flaxformer_edu.failures import explain

    message, status = explain(error)
    if message:
        say(message)
    try:
        sys.stdout.flush()
    except OSError:  # it has been said, and is not to be met again at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return status


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C: a KeyboardInterrupt where `through` will catch it, the end at once everywhere else.

    The end at once, too, inside an import, which would make an ImportError of it that somebody catches, and where it is
    pressed again.
    """
    global _interrupts
    _interrupts += 1
    caught = False
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORTING):
            caught = False
            break
        caught = caught or frame.f_code is through.__code__
        frame = frame.f_back
    if caught and _interrupts == 1:
        raise KeyboardInterrupt
    leave("interrupted", INTERRUPTED)


def _on_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """In place of printing the traceback of what nobody caught."""
    sys.exit(_ended_by(error))


def _on_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """In place of going on after a Ctrl-C that hit where no exception can pass, such as a destructor."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        leave("interrupted", INTERRUPTED)
    if unraisable.object is not None:  # tensorstore's threads, on a full disk: the main one says what went wrong
        sys.__unraisablehook__(unraisable)


def _open_streams() -> None:
    """Nothing in place of a closed stream, so that no other file takes its number; escapes for what is not encodable.

    A program whose standard output is closed ends here: what it is to print would be lost without a word.
    """
    silent = sys.stdout is None
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(number, True)
        os.close(number)
        sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
        sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    if silent:
        leave("standard output is closed: send it to a file, or to /dev/null", WRONG_INPUT)


def _flush() -> None:
    """What was printed last reaches the standard output, or the exit status says that it did not."""
    from flaxformer_edu.failures import explain

    try:
        sys.stdout.flush()
    except OSError as error:
        leave(*explain(error))
