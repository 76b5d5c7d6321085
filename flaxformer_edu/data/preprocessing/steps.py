"""How a picture becomes what a model sees: colours, size, the middle, and numbers around zero. Kept with the model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8

from flaxformer_edu.data.formats.pictures import Colours
from flaxformer_edu.data.images import grey, resize_image
from flaxformer_edu.data.preprocessing.resizing import Arithmetic, Interpolation, Picture, resize_picture
from flaxformer_edu.errors import InputError

Squares = Shaped[Array | np.ndarray, "batch size _size channel"]
Resize = Literal["middle", "shortest", "exact", "none"]
Centre = Literal["round", "floor"]
CHOICES = {
    name: get_args(kind)
    for name, kind in {
        "resize": Resize,
        "interpolation": Interpolation,
        "arithmetic": Arithmetic,
        "centre": Centre,
        "colours": Colours,
    }.items()
}
LARGEST = 1 << 14  # pixels per side


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The steps in their order; what each library calls them is in `published`.

    size: the side, in pixels, of the square that the model sees.
    colours: see `formats.pictures.to_rgb`; a model of one channel sees luminance.
    resize: "shortest" side or, stretched, both sides ("exact") to `resize_to` (default: `size`); the largest "middle"
        square to `size`, which is then not cut; or "none".
    interpolation, arithmetic, antialias: see `resizing.resize_picture`.
    centre: the middle of `size` x `size` pixels is cut out, and what is missing is black. Where the margins cannot be
        equal, the upper and left one is the smaller ("floor": transformers), or half of the sum rounded to even
        ("round": torchvision, timm).
    rescale, mean, std: levels from 0 to 255 become `(level * rescale - mean) / std`, for each channel or for all;
        "torch_float" rescales before it resizes (DINOv3).
    """

    size: int
    channels: int = 3
    colours: Colours = "shown"
    resize: Resize = "middle"
    resize_to: int | None = None
    interpolation: Interpolation = "bicubic"
    arithmetic: Arithmetic = "pillow"
    antialias: bool = True
    centre: Centre = "round"
    rescale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        """Raise InputError for a value that cannot be."""
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is {getattr(self, name)!r:.60}, expected one of {', '.join(choices)}")
        for name in ("size", "resize_to"):
            value = getattr(self, name)
            if not (name == "resize_to" and value is None) and not (type(value) is int and 1 <= value <= LARGEST):
                raise InputError(f"{name} is {value!r:.60}, expected a whole number from 1 to {LARGEST:,}")
        if self.channels not in (1, 3):
            raise InputError(f"channels is {self.channels!r:.60}, expected 1 (grey) or 3 (colour)")
        for name in ("mean", "std"):
            numbers = np.asarray(getattr(self, name), np.float64)
            if numbers.shape not in ((1,), (self.channels,)) or not np.isfinite(numbers).all():
                raise InputError(f"{name} is {getattr(self, name)!r:.60}, expected 1 or {self.channels} numbers")
        if min(self.std) <= 0 or not 0 < self.rescale < np.inf:
            raise InputError(f"std is {self.std} and rescale {self.rescale}, expected numbers above 0")
        if self.resize == "middle" and (self.arithmetic, self.interpolation) != ("pillow", "bicubic"):
            raise InputError("the resize middle is Pillow's, and bicubic: choose shortest for other ways")
        if self.interpolation == "lanczos" and self.arithmetic != "pillow" and not self.antialias:
            raise InputError("lanczos without antialias is done by no library: choose bicubic")

    def square(self, picture: Picture) -> Shaped[np.ndarray, "size _size colour"]:
        """What the model sees of a picture in RGB: levels from 0 to 255; of "torch_float" floats, rescaled already."""
        if self.resize == "middle":
            middle = resize_image(picture, self.size)
            return grey(middle) if self.channels == 1 else middle
        height, width = self._resized(*picture.shape[:2])
        if self.arithmetic == "torch_float":
            picture = picture.astype(np.float32) * np.float32(self.rescale)
        if self.resize != "none":
            kind = (self.interpolation, self.arithmetic, self.antialias)
            picture = resize_picture(picture, height, width, *kind)
        cut = self._middle(picture)
        return grey(cut) if self.channels == 1 else cut

    def normalise(self, squares: Squares) -> Float[Array | np.ndarray, "batch size _size channel"]:
        """The numbers that the model is given, in float32; of NumPy's arrays and of JAX's."""
        rescale = np.float32(1 if self.arithmetic == "torch_float" else self.rescale)
        mean, std = (np.asarray(value, np.float32) for value in (self.mean, self.std))
        return (squares.astype(np.float32) * rescale - mean) / std

    def levels(self, square: Shaped[np.ndarray, "size _size colour"]) -> UInt8[np.ndarray, "size _size colour"]:
        """A square to be looked at."""
        if square.dtype == np.uint8:
            return square
        return np.clip(np.rint(square / self.rescale), 0, 255).astype(np.uint8)

    def at(self, size: int) -> "Preprocessing":
        """The same for a model of another size: the share that is cut out stays."""
        if self.resize_to is None or size == self.size:
            return replace(self, size=size)
        return replace(self, size=size, resize_to=max(size, round(self.resize_to * size / self.size)))

    def notes(self) -> dict[str, Any]:
        """What a model's notes keep of it."""
        return {"mean": self.mean, "std": self.std, "preprocessing": self.to_json()}

    @classmethod
    def in_notes(cls, notes: Mapping[str, Any], *, size: int, channels: int) -> "Preprocessing":
        """That in the notes of a model which sees `size` pixels; of older ones `mean` and `std`, and the middle square.

        Raises InputError where the notes have neither, or say what cannot be.
        """
        if "preprocessing" in notes:
            return cls.from_json(notes["preprocessing"]).at(size)
        mean, std = (tuple(map(float, notes[name])) if name in notes else None for name in ("mean", "std"))
        if mean is None or std is None:
            raise InputError("the model was saved without preprocessing, or mean and std, in its notes: save it again")
        return cls(size=size, channels=channels, mean=mean, std=std)

    def to_json(self) -> dict[str, Any]:
        """As it is kept in a model's notes."""
        return asdict(self)

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> "Preprocessing":
        """What `to_json` wrote. Raises InputError for a field that is not known, and a value that cannot be."""
        if not isinstance(described, Mapping) or "size" not in described:
            raise InputError(f"preprocessing is {described!r:.60}, expected fields, among them size")
        if unknown := set(described) - {field.name for field in fields(cls)}:
            names = ", ".join(sorted(map(str, unknown)))
            raise InputError(f"preprocessing has the fields {names}, which are not known")
        sequences = {name: tuple(described[name]) for name in ("mean", "std") if name in described}
        return cls(**{**described, **sequences})

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """The size before the middle is cut out. A long side is cut to whole pixels, as all libraries do it."""
        side = self.resize_to or self.size
        if self.resize == "none":
            return height, width
        if self.resize == "exact":
            return side, side
        long = int(side * max(height, width) / min(height, width))
        if max(long, side) > LARGEST * 16:
            raise InputError(f"the picture is {width} x {height} pixels, too narrow to be resized by its shortest side")
        return (long, side) if width <= height else (side, long)

    def _middle(self, picture: Shaped[np.ndarray, "height width channel"]) -> Shaped[np.ndarray, "size _size colour"]:
        height, width = picture.shape[:2]
        if height < self.size or width < self.size:
            missing = [max(0, self.size - side) for side in (height, width)]
            picture = np.pad(picture, [*((n // 2, (n + 1) // 2) for n in missing), (0, 0)])
        top, left = (self._margin(side - self.size) for side in picture.shape[:2])
        return picture[top : top + self.size, left : left + self.size]

    def _margin(self, both: int) -> int:
        return round(both / 2) if self.centre == "round" else both // 2
