"""Picture files as RGB of 8 bits, seen as a viewer shows them; what cannot be shown rightly is refused."""

import io
import warnings
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Num, UInt8

from flaxformer_edu.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Colours = Literal["shown", "white", "kept"]
OPAQUE = WHITE = 255
ORIENTATION = 274  # of the tags of EXIF
TIFF_BITS, TIFF_PHOTOMETRIC = 258, 262  # of the tags of TIFF 6.0; photometric 0: the largest number is black
REMEDY = "save it as an ordinary PNG or JPEG"


def decode_image(content: bytes, name: str, colours: Colours = "shown") -> UInt8[np.ndarray, "height width 3"]:
    """A picture file as RGB. `name` is for the message of the `InputError` raised where it cannot be shown rightly.

    `colours`: see `to_rgb`. Of an animation the first frame is taken. More than 89 million pixels (Pillow's limit) are
    refused before memory is asked for.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                return np.array(to_rgb(image, colours))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{name} has too many pixels ({error}); make it smaller") from error
    except InputError as error:
        raise InputError(f"{name} {error}") from error
    except Exception as error:  # a damaged picture can fail in any way
        raise InputError(f"{name} is no picture that can be read, or damaged ({error}); replace it") from error


def to_rgb(image: "Picture", colours: Colours = "shown") -> "Picture":
    """The picture upright, as its EXIF tag says, in RGB of 8 bits.

    - "shown", as a viewer shows it: grey levels of 16 bits, and floats from 0 to 1, are scaled to 8 bits. What is
      transparent shows white, as on a page: the colours hidden below it are most often black, and mean nothing.
    - "white", as transformers: what is transparent shows white; more than 8 bits are cut off, and white above 255.
    - "kept", as timm and torchvision's folders: Pillow's own `convert("RGB")`, with the colours below the transparent.

    The message of the `InputError`s of "shown" wants the file's name in front.
    """
    from PIL import Image, ImageOps

    if colours != "shown":
        upright = ImageOps.exif_transpose(image)
        if colours == "kept" or not upright.has_transparency_data:
            return upright.convert("RGB")
        ground = Image.new("RGBA", upright.size, "white")
        return Image.alpha_composite(ground, upright.convert("RGBA")).convert("RGB")
    layout = str(getattr(image, "tile", ""))  # is gone once the picture is loaded
    image.load()
    deep = image.mode.startswith(("I", "F"))
    if "transparency" in image.info and (";16" in layout or deep):
        raise InputError(f"has 16 bits and a transparent colour, which is not read: {REMEDY}")
    if deep:
        levels = Image.fromarray(grey_levels(image))
        levels.getexif().update({ORIENTATION: image.getexif().get(ORIENTATION, 1)})
        image = levels
    upright = ImageOps.exif_transpose(image)
    return on_white(upright) if image.has_transparency_data else upright.convert("RGB")


def on_white(image: "Picture") -> "Picture":
    """A picture with transparent parts on a white ground. Raises `InputError` where nothing of it shows."""
    from PIL import Image

    coloured = image.convert("RGBA")
    shown = Image.alpha_composite(Image.new("RGBA", image.size, "white"), coloured).convert("RGB")
    seen_through = np.asarray(coloured)[..., 3].min() < OPAQUE
    if seen_through and np.asarray(shown).min() == WHITE:
        raise InputError("is transparent and shows nothing but white on white: give it a background")
    return shown


def grey_levels(image: "Picture") -> UInt8[np.ndarray, "height width"]:
    """Levels of more than 8 bits from 0 to 255. Raises `InputError` where it is not known which number is white."""
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.mode == "F":
        white = 1
    elif image.mode == "I" and image.format not in ("PNG", "PPM"):  # Pillow's mode for those of 16 bits
        raise InputError(f"holds signed or very large whole numbers, none of which is known to be white: {REMEDY}")
    else:
        white = 2 ** tags.get(TIFF_BITS, (16,))[0] - 1
    return scaled_levels(values, white, inverted=tags.get(TIFF_PHOTOMETRIC) == 0)


def scaled_levels(
    values: Num[np.ndarray, "height width"], white: int, *, inverted: bool
) -> UInt8[np.ndarray, "height width"]:
    """Numbers from 0 (black, or white where they are inverted) to `white` as 0 to 255; `InputError` for others."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= white):  # nor is a NaN
        raise InputError(f"holds numbers from {low:g} to {high:g}, expected 0 to {white}: {REMEDY}")
    levels = np.rint(values.astype(np.float32) * (255 / white)).astype(np.uint8)
    return 255 - levels if inverted else levels
