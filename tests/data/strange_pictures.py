"""Pictures of every mode, of odd sizes, turned by EXIF; each the same for the same number."""

import io

import numpy as np
from PIL import Image

MODES = ("RGB", "L", "P", "RGBA", "LA", "CMYK", "1", "I;16", "transparent P")
SIDES = (1, 2, 3, 17, 31, 33, 64, 97)


def strange_picture(number: int, largest: int = 120) -> Image.Image:
    """A picture file that was opened. Every second one is as hard as can be: black beside white, no smooth ground."""
    random = np.random.default_rng(number)
    mode = MODES[number % len(MODES)]
    height, width = (int(random.choice([*SIDES, *random.integers(1, largest, len(SIDES))])) for _ in range(2))
    levels = random.integers(0, 256, (height, width, 4), dtype=np.uint8)
    levels = np.where(levels > 127, 255, 0).astype(np.uint8) if number % 2 else levels
    if mode == "I;16":
        image = Image.fromarray(levels[..., 0].astype(np.uint16) * 257)
    elif mode in ("P", "transparent P"):
        image = Image.fromarray(levels[..., :3]).quantize(min(16, height * width))
    elif mode == "LA":
        image = Image.fromarray(levels).convert("LA")
    elif mode == "CMYK":
        image = Image.fromarray(levels, "CMYK")
    else:
        image = Image.fromarray(levels).convert(mode)
    exif = Image.Exif()
    exif[274] = number % 8 + 1
    options = {"transparency": 0} if mode == "transparent P" else {}
    content = io.BytesIO()
    image.save(content, "TIFF" if mode in ("CMYK", "I;16") else "PNG", exif=exif, **options)
    return Image.open(content)
