"""Files and folders that appear whole or not at all, JSON, and where the cache is.

Everything is first written under a name of its own beside its target, and takes the target's name at the end: neither a
crash of the process nor a full disk leaves half a file, and two processes never write into one. A power failure can
still lose what the system had not yet brought to the disk.
"""

import errno
import json
import math
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from flaxformer_edu.errors import InputError
from flaxformer_edu.remedies import remedy

AnyPath = str | os.PathLike[str]

_DRAFTS: set[Path] = set()  # those that are being written now
_OPEN_FILE = re.compile(r"/dev/(stdin|stdout|stderr)|/(?:dev|proc/self)/fd/([0-9]+)")
LONGEST_SUFFIX = 16  # characters of a name's ending that a draft keeps: some libraries go by it


def cache_folder() -> Path:
    """The folder named by FLAXFORMER_EDU_CACHE, otherwise `~/.cache/flaxformer_edu`; it may not exist yet."""
    named = os.environ.get("FLAXFORMER_EDU_CACHE")
    try:
        return Path(named).expanduser() if named else Path.home() / ".cache" / "flaxformer_edu"
    except RuntimeError as error:  # of a user whom the system does not know
        raise InputError(f"no home folder is known ({error}): set FLAXFORMER_EDU_CACHE to a folder") from None


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """`folder`, by `make(folder)` where it does not exist yet; another process may be making it at the same time."""
    with _explained(folder):
        if not is_filled(folder):
            try:
                make(folder)
            except InputError:
                if not is_filled(folder):
                    raise
        return folder


def is_filled(folder: Path) -> bool:
    """Whether it is a folder with something in it."""
    return folder.is_dir() and any(folder.iterdir())


def make_folder(folder: AnyPath) -> Path:
    """The folder, made with all above it where it is not there yet. Raises InputError where it cannot be made."""
    with _explained(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


def check_target(target: AnyPath) -> None:
    """Raise InputError where `written_file` could not write there: before what takes long, rather than after it."""
    with _explained(target):
        real = Path(os.path.realpath(target))
        if real.is_dir():
            raise InputError(f"{target} is a folder: choose the name of a file")
        if real.exists() and not os.access(real, os.W_OK):
            raise InputError(f"{target} is write-protected: choose another name")
        above = next(folder for folder in real.parents if folder.exists())
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory")


@contextmanager
def written_file(target: AnyPath) -> Iterator[Path]:
    """The path to write a file to: a hidden one beside `target`, which it replaces if all went well.

    Folders above it are made. Of a link, the file that it leads to is replaced; into a device or a pipe the content is
    copied at the end, and so it is into what the process has open already: /dev/stdout, /dev/fd/3. Raises InputError
    where the target is a folder or cannot be written, with the remedy.
    """
    already_open = _open_file(target)
    shown, target = target, Path(os.path.realpath(target))
    with _explained(shown):
        if already_open is not None:
            with TemporaryDirectory() as folder:
                yield (draft := Path(folder) / "draft")
                sys.stdout.flush()  # what was printed before it comes before it
                with draft.open("rb") as source, os.fdopen(os.dup(already_open), "wb") as stream:
                    shutil.copyfileobj(source, stream)
            return
        check_target(shown)
        kind = target.stat().st_mode if target.exists() else None
        if kind is not None and not stat.S_ISREG(kind):
            with TemporaryDirectory() as folder:  # not given away itself: some libraries put a file in its place
                yield (draft := Path(folder) / f"draft{target.suffix}")
                with draft.open("rb") as source, target.open("wb") as device:
                    shutil.copyfileobj(source, device)
            return
        with _draft_beside(target) as draft:
            yield draft
            if kind is not None:
                draft.chmod(stat.S_IMODE(kind))
            draft.replace(target)


@contextmanager
def written_folder(target: AnyPath, *, replace: bool = False) -> Iterator[Path]:
    """A new, hidden folder beside `target` to write into; it takes the name `target` only if all went well.

    With `replace` a folder that is already there gives way at the end. Raises InputError where `target` is a file,
    already holds something (without `replace`), or cannot be written.
    """
    shown, target = target, Path(os.path.realpath(target))
    with _explained(shown):
        if (target.exists() and not target.is_dir()) or (is_filled(target) and not replace):
            raise InputError(f"{shown} already exists: choose another folder, or delete it first")
        with _draft_beside(target) as draft, _draft_beside(target) as aside:
            draft.mkdir()
            try:
                yield draft
            except InputError as error:  # of a file in it: under the name that it was to have
                if str(draft) not in str(error):
                    raise
                raise InputError(str(error).replace(str(draft), str(shown))) from error
            if replace and target.exists():
                target.replace(aside)
            try:
                draft.replace(target)
            except OSError:
                if aside.exists():
                    aside.replace(target)
                raise


def write_text(path: AnyPath, text: str) -> None:
    """Write a text file, in UTF-8, whole or not at all. Raises InputError where it cannot be written."""
    with written_file(path) as draft:
        draft.write_bytes(text.encode("utf-8"))


def write_json(path: AnyPath, value: Any) -> None:
    """Write a JSON file, whole or not at all; NaN and the infinities, which JSON has not, become null.

    Raises InputError where it cannot be written.
    """
    text = json.dumps(_finite(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with written_file(path) as draft:
        # What of a file's name is no UTF-8 stands in it as \udc80 to \udcff: in JSON, too, that is how it is written.
        draft.write_bytes(text.encode("utf-8", "backslashreplace"))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: AnyPath, *, remedy: str = "get the file again") -> Any:
    """A JSON file's content. Raises InputError where there is no such file, or it is no JSON."""
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise InputError(f"no file {path}: {remedy}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): {remedy}") from None
    except (ValueError, RecursionError) as error:  # of bytes that are no text, too
        raise InputError(f"{path} is not valid JSON ({error!s:.100}): {remedy}") from None


def read_json_object(path: AnyPath, *, remedy: str = "get the file again") -> dict[str, Any]:
    """The same of a file that must hold an object, `{...}`."""
    content = read_json(path, remedy=remedy)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, expected a JSON object: {remedy}")
    return content


@contextmanager
def _draft_beside(target: Path) -> Iterator[Path]:
    """A name that nothing else has, in the target's folder; whatever is left under it at the end is deleted."""
    suffix = target.suffix if len(target.suffix) <= LONGEST_SUFFIX else ""
    draft = target.with_name(f".{uuid4().hex}{suffix}")
    target.parent.mkdir(parents=True, exist_ok=True)
    _DRAFTS.add(draft)
    try:
        yield draft
    finally:
        _discard(draft)


def discard_drafts() -> None:
    """Delete what is half written, before the process ends on the spot."""
    for draft in tuple(_DRAFTS):
        _discard(draft)


def _discard(draft: Path) -> None:
    if draft.is_dir():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        draft.unlink(missing_ok=True)
    _DRAFTS.discard(draft)


def _open_file(target: AnyPath) -> int | None:
    """The number of the open file that a name such as /dev/stdout stands for."""
    named = _OPEN_FILE.fullmatch(os.fspath(target))
    if named is None:
        return None
    return int(named[2]) if named[2] else ("stdin", "stdout", "stderr").index(named[1])


@contextmanager
def _explained(target: AnyPath) -> Iterator[None]:
    """Any OSError as an InputError that names the target, and what to do."""
    try:
        yield
    except OSError as error:
        advice = remedy(error, "choose a place you may write to")
        raise InputError(f"{target} cannot be written ({error.strerror or error}): {advice}") from error
