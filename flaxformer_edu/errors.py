"""The one exception for wrong input, and the check that models and layers make at their door."""


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
