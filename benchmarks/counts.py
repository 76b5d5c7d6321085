"""What a benchmark can count to."""

import dataclasses
from typing import Any, TypeVar

from flaxformer_edu.errors import InputError

Settings = TypeVar("Settings")


def checked(settings: Settings) -> Settings:
    """The settings, a dataclass. Raises InputError where a whole number among them is below 1, or a list is empty."""
    fields: dict[str, Any] = dataclasses.asdict(settings)  # pyright: ignore[reportArgumentType]
    for name, value in fields.items():
        numbers = list(value) if isinstance(value, list | tuple) else [value]
        if not numbers or any(type(number) is int and number < 1 for number in numbers):
            shown = " ".join(map(str, numbers)) or "empty"
            raise InputError(f"--{name.replace('_', '-')} is {shown}, expected 1 or more")
    return settings
