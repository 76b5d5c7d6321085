"""Pictures as arrays: from a URL, a path, or a zip file beside the data."""

import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from types import TracebackType
from urllib.request import urlopen

import numpy as np
from jaxtyping import Bool, Num, UInt8

from flaxformer_edu.data.formats.pictures import Colours, decode_image
from flaxformer_edu.errors import InputError

TIMEOUT = 10.0  # seconds
_LARGEST_FILE = 50_000_000  # bytes, of a picture from the web or from a zip file
_LARGEST_PATH = 500_000_000  # bytes, of a file on disk


class PictureReader:
    """Reads the pictures that a data folder names. Use it in a `with` statement: it keeps zip files open.

    A name that starts with http:// or https:// is fetched; any other is a path, relative to the folder, or else a
    member of a zip file in the folder: `pictures/1.png` may be the member `1.png` of `pictures.zip`. A path that leads
    out of the folder is refused, since names come from files of others; without a folder all paths are the caller's.
    """

    def __init__(self, folder: str | Path | None = None, timeout: float = TIMEOUT) -> None:
        self.named = folder is not None
        self.folder = Path(folder or ".")
        self.timeout = timeout
        self._archives: dict[Path, zipfile.ZipFile] = {}

    def __enter__(self) -> "PictureReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for archive in self._archives.values():
            archive.close()

    def read(self, name: str, colours: Colours = "shown") -> UInt8[np.ndarray, "height width 3"]:
        """The picture in RGB, by one of the ways of `formats.pictures.to_rgb`.

        Raises `InputError` where it cannot be found, fetched in time, or is no picture.
        """
        return decode_image(self._content(name), name, colours)

    def _content(self, name: str) -> bytes:
        if name.startswith(("http://", "https://")):
            return fetch(name, self.timeout)
        path = self.folder / name
        if self.named and not is_below(path, self.folder):
            raise InputError(f"picture {name} leads out of {self.folder}, which is refused; put it there")
        try:
            if path.is_file():
                return read_file(path)
        except OSError as error:  # of names that are too long, too
            raise InputError(f"picture {path} cannot be read ({error.strerror or error})") from error
        for archive in sorted(self.folder.glob("*.zip")):
            for member in (name, name.removeprefix(f"{archive.stem}/")):
                if (content := self._member(archive, member)) is not None:
                    return content
        raise InputError(f"no picture {path}, nor in a zip file in {self.folder}; check the name")

    def _member(self, path: Path, member: str) -> bytes | None:
        try:
            if path not in self._archives:
                self._archives[path] = zipfile.ZipFile(path)
            info = self._archives[path].getinfo(member)
            if info.file_size <= _LARGEST_FILE:
                return self._archives[path].read(info)
        except KeyError:
            return None
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
            raise InputError(f"{path} is truncated or no zip file; download it again ({error})") from error
        raise InputError(f"{member} in {path} is larger than {_LARGEST_FILE / 1e6:.0f} MB, too large for a picture")


def is_below(path: Path, folder: Path) -> bool:
    """Whether a path, as it is written, stays in the folder: links in the folder may lead anywhere."""
    return Path(os.path.normpath(path.absolute())).is_relative_to(os.path.normpath(folder.absolute()))


def read_file(path: Path) -> bytes:
    """A picture's file on disk, up to 500 MB."""
    if (size := path.stat().st_size) > _LARGEST_PATH:
        raise InputError(f"{path} has {size / 1e6:.0f} MB, too large for a picture: make it smaller")
    return path.read_bytes()


def fetch(url: str, timeout: float = TIMEOUT) -> bytes:
    """What the URL holds, up to 50 MB."""
    try:
        with urlopen(url, timeout=timeout) as answer:
            content = answer.read(_LARGEST_FILE + 1)
            if len(content) <= _LARGEST_FILE and answer.length:  # of what was announced, some is missing
                raise IncompleteRead(content, answer.length)
    except (OSError, HTTPException, ValueError) as error:
        raise InputError(f"cannot fetch {url} within {timeout:g} s per step ({error})") from error
    if len(content) > _LARGEST_FILE:
        raise InputError(f"{url} is larger than {_LARGEST_FILE / 1e6:.0f} MB, too large for a picture")
    return content


def resize_image(image: UInt8[np.ndarray, "height width 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The largest square in the middle of the picture, resized to `size` pixels."""
    from PIL import Image, ImageOps

    square = ImageOps.fit(Image.fromarray(image), (size, size), Image.Resampling.BICUBIC)
    return np.asarray(square)


def grey(image: Num[np.ndarray, "height width 3"]) -> Num[np.ndarray, "height width 1"]:
    """The luminance (ITU-R BT.601), of uint8 rounded to whole levels."""
    levels = image @ np.asarray((0.299, 0.587, 0.114))
    levels = np.rint(levels) if image.dtype == np.uint8 else levels
    return levels.astype(image.dtype)[..., None]


def thumbnail(
    image: UInt8[np.ndarray, "height width 3"], longest: int
) -> UInt8[np.ndarray, "smaller_height smaller_width 3"]:
    """The whole picture, made smaller where a side has more than `longest` pixels."""
    from PIL import Image

    small = Image.fromarray(image)
    small.thumbnail((longest, longest))
    return np.array(small)  # a copy, which keeps nothing of the picture alive


def read_images(
    folder: str | Path,
    names: Sequence[str] | np.ndarray,
    size: int,
    on_missing: Callable[[str], object] | None = None,
    timeout: float = TIMEOUT,
) -> tuple[UInt8[np.ndarray, "picture size size 3"], Bool[np.ndarray, "picture"]]:
    """All the pictures as squares of `size` pixels, and which of them were found.

    Raises `InputError` for the first that cannot be read; with `on_missing`, which is called with one message for each
    of these, they stay black.
    """
    images = np.zeros((len(names), size, size, 3), dtype=np.uint8)
    found = np.zeros(len(names), dtype=bool)
    with PictureReader(folder, timeout) as reader:
        for index, name in enumerate(names):
            try:
                images[index] = resize_image(reader.read(str(name)), size)
                found[index] = True
            except InputError as error:
                if on_missing is None:
                    raise
                on_missing(f"skipped: {error}")
    return images, found
