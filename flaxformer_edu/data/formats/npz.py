"""NumPy's npz files, read without pickles."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flaxformer_edu.errors import InputError


def load_npz(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays named `keys`. Raises `InputError` where the file or a key is missing, or the file is damaged."""
    if not path.is_file():
        raise InputError(f"no file {path}; it comes with the CS188 project that uses it")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            missing = [key for key in keys if key not in file]
            if missing:
                raise InputError(f"{path} has no array {', '.join(missing)} (it has {', '.join(file)}); replace it")
            return {key: file[key] for key in keys}
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is truncated or no npz file ({error}); replace it") from error
