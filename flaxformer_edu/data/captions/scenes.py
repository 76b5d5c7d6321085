"""Scenes that one sentence describes fully: "a small red circle above a blue square", drawn as a picture."""

import itertools
from dataclasses import astuple, dataclass

import numpy as np
from jaxtyping import UInt8

SIZES = {"small": 7.0, "large": 12.0}  # radii in pixels; the second object, of which no size is said, has 9
SECOND_RADIUS = 9.0
COLOURS = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (31, 90, 200),
    "yellow": (240, 205, 30),
    "purple": (140, 60, 170),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle")
RELATIONS = {"above": (0, -1), "below": (0, 1), "left of": (-1, 0), "right of": (1, 0)}  # of the first, in (x, y)
PICTURE_SIZE = 64
_DISTANCE = 15.0  # of either object from the middle, in pixels
_JITTER = 1.5
_OVERSAMPLING = 4  # drawn that many times larger, then averaged, for smooth edges


@dataclass(frozen=True)
class Scene:
    """What is in a picture; its words, in this order, are the caption."""

    size: str
    colour: str
    shape: str
    relation: str
    second_colour: str
    second_shape: str

    def caption(self) -> list[str]:
        """The sentence as words."""
        sentence = "a {} {} {} {} a {} {}".format(*astuple(self))
        return sentence.split()


def all_scenes() -> list[Scene]:
    """All 2,592 combinations, in a fixed order."""
    choices = itertools.product(SIZES, COLOURS, SHAPES, RELATIONS, COLOURS, SHAPES)
    return [Scene(*words) for words in choices]


def draw_scene(scene: Scene, random: np.random.Generator) -> UInt8[np.ndarray, "64 64 3"]:
    """A picture of the scene; `random` shifts the objects a little and varies their colours and the pale ground."""
    from PIL import Image, ImageDraw

    ground = tuple(int(tone) for tone in random.integers(215, 256, 3))
    side = PICTURE_SIZE * _OVERSAMPLING
    canvas = Image.new("RGB", (side, side), ground)
    pen = ImageDraw.Draw(canvas)
    direction = np.array(RELATIONS[scene.relation])
    for sign, radius, colour, shape in (
        (1, SIZES[scene.size], scene.colour, scene.shape),
        (-1, SECOND_RADIUS, scene.second_colour, scene.second_shape),
    ):
        centre = PICTURE_SIZE / 2 + sign * _DISTANCE * direction + random.uniform(-_JITTER, _JITTER, 2)
        fill = tuple(int(tone) for tone in np.clip(COLOURS[colour] + random.integers(-15, 16, 3), 0, 255))
        _draw_shape(pen, shape, centre * _OVERSAMPLING, radius * _OVERSAMPLING, fill)
    return np.asarray(canvas.reduce(_OVERSAMPLING))


def _draw_shape(pen, shape: str, centre: np.ndarray, radius: float, fill: tuple[int, ...]) -> None:
    """A circle of this radius, or a square or upright triangle of about the same area."""
    (x, y), half = centre, 0.89 * radius
    if shape == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    elif shape == "square":
        pen.rectangle((x - half, y - half, x + half, y + half), fill=fill)
    else:
        pen.polygon([(x, y - 1.3 * radius), (x - 1.2 * radius, y + radius), (x + 1.2 * radius, y + radius)], fill=fill)
