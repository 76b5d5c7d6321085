"""Where downloads and drawn data are kept, and how files are written so that a half-written one is never trusted."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flaxformer_edu.errors import InputError


def cache_folder() -> Path:
    """The folder named by FLAXFORMER_EDU_CACHE, otherwise `~/.cache/flaxformer_edu`; it may not exist yet."""
    named = os.environ.get("FLAXFORMER_EDU_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "flaxformer_edu"


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """`folder`, by `make(folder)` where it does not exist yet; another process may be making it at the same time."""
    if not _is_filled(folder):
        try:
            make(folder)
        except InputError:
            if not _is_filled(folder):
                raise
    return folder


@contextmanager
def written_folder(target: Path) -> Iterator[Path]:
    """A new, hidden folder beside `target` to write into; it takes the name `target` only if all went well.

    Raises `InputError` where `target` already holds something or cannot be written.
    """
    if target.is_file() or _is_filled(target):
        raise InputError(f"{target} already exists; choose another folder, or delete it first")
    with _draft_beside(target) as draft:
        draft.mkdir()
        yield draft


@contextmanager
def written_file(target: Path) -> Iterator[Path]:
    """The name of a hidden file beside `target` to write; it replaces `target` only if all went well."""
    with _draft_beside(target) as draft:
        yield draft


@contextmanager
def _draft_beside(target: Path) -> Iterator[Path]:
    draft = target.with_name(f".{uuid.uuid4().hex[:8]}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        draft.replace(target)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error}); choose a place you may write to") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if draft.is_file():
            draft.unlink()


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
