"""A picture from a file's bytes to RGB pixels, alike at every entrance, and what it is known by. The only door to Pillow's open.

What a model is shown is upright (EXIF obeyed), transparent parts over white, 16-bit grey by its high byte (as Pillow takes
16-bit colour), CMYK and other colour spaces as Pillow converts them. Colour profiles are not applied, as in transformers.
What has no such meaning (float and 32-bit grey, which have no range of their own; several frames) and what would take more
memory than a picture may is refused by name.
"""

from __future__ import annotations

import hashlib
import io
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..basics.errors import BadSample, first_line

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Pillow's names of the formats that are read; its JPEG includes MPO. Some of its others start programs or read without bound."""
DECODING = 2
"""Another number when a file would give other pixels than before."""
MAX_PIXELS = 2**26
"""67 million: decoding one picture takes less than 1 GB whatever its file says."""
MAX_SIDE = 32_767
"""Pixels."""
MAX_RATIO = 200
"""Longer side over shorter (Qwen's processor has this bound): others enlarge the shorter side to the tower's first."""
MAX_BYTES = 2**28
"""Of a picture's file."""
BLANK = "blank "
"""What the digest of a picture of one colour begins with: it is not one that two splits can share."""

_ORIENTATION = 0x0112
_MARK = b"Exif\0\0"
_EIGHT_BIT = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Modes whose values Pillow converts to RGB by their range."""
_SIDEWAYS = ("ROTATE_90", "ROTATE_270", "TRANSPOSE", "TRANSVERSE")
_LARGE = 2**22
_ONE_LARGE = threading.Lock()
"""Held by a thread that decodes more than ``_LARGE`` pixels: several threads take no more memory than a large picture does."""


@dataclass(frozen=True)
class Picture:
    """A picture that was read."""

    image: Image
    """RGB, upright."""
    plain: str = ""
    """``jpg`` or ``png`` where every reader finds just these pixels in the file, else empty: turned, transparent, 16-bit, …"""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.image.size

    @cached_property
    def digest(self) -> str:
        """What it is known by, whatever file it comes in: 32 hex digits of its size and pixels; see ``BLANK``."""
        digest = hashlib.sha256(f"{self.size}".encode())
        digest.update(self.image.tobytes())
        extrema: Any = self.image.getextrema()
        one_colour = all(low == high for low, high in extrema)
        return (BLANK if one_colour else "") + digest.hexdigest()[:32]


def read_picture(data: bytes, where: str) -> Picture:
    """The picture in a file's bytes; BadSample (``undecodable-image``, ``odd-image``) that begins with ``where``."""
    from PIL import Image as Images

    if len(data) > MAX_BYTES:
        raise BadSample("odd-image", f"{where} is a file of more than {MAX_BYTES:,} bytes, which a picture may have")
    try:
        with _opened(data) as image:
            _check(image, where)
            if image.format == "PNG":
                _verify_png(data)
            if image.width * image.height <= _LARGE:
                return _picture(image, where)
            with _ONE_LARGE:
                return _picture(image, where)
    except BadSample:
        raise
    except Images.DecompressionBombError as error:
        raise BadSample("odd-image", f"{where} is too large: {first_line(error)}") from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, ... for damaged files
        raise BadSample("undecodable-image", f"{where} cannot be decoded ({_said(error)})") from None


def picture_file(path: Path) -> bytes:
    """The bytes of an image file, of one too large as many as make that known; BadSample if there is none to read."""
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadSample("undecodable-image", f"{path} cannot be read: {error.strerror}") from None


def decode_image(data: bytes, where: str) -> Image:
    """:func:`read_picture`'s RGB ``PIL.Image``."""
    return read_picture(data, where).image


def as_png(image: Image, where: str) -> bytes:
    """A PNG file that shows ``image``, which may be of any mode, as :func:`read_picture` would show its own file; BadSample."""
    try:
        _check(image, where)
        shown = _picture(image, where).image
    except (OSError, ValueError) as error:
        raise BadSample("undecodable-image", f"{where} cannot be converted ({_said(error)})") from None
    return png_bytes(shown)


def png_bytes(image: Image) -> bytes:
    """A PNG file of an RGB image: nothing is lost."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def stored_alike(
    first: bytes, second: bytes, where: str, change: Callable[[Picture], Picture] = lambda picture: picture
) -> tuple[bytes, bytes]:
    """The two files of a pair as a shard keeps them: as they are where both are plain JPEG or both plain PNG, else both as PNG.

    No pixel changes but by ``change``, which gives a picture that is not ``plain`` where it changes one. A loss on one side of a
    pair alone would be something that an objective can learn instead of the contrast. BadSample if one cannot be read.
    """
    pictures = [change(read_picture(data, where)) for data in (first, second)]
    if pictures[0].plain and pictures[0].plain == pictures[1].plain:
        return first, second
    return png_bytes(pictures[0].image), png_bytes(pictures[1].image)


def picture_format(data: bytes) -> str:
    """Pillow's name of a picture's format, by its header alone; empty for what is none that is read."""
    try:
        with _opened(data) as image:
            return image.format or ""
    except Exception:  # OSError, SyntaxError, struct.error, ...: reading it says what is the matter
        return ""


def picture_size(data: bytes) -> tuple[int, int]:
    """(width, height) upright of a picture that :func:`read_picture` can read, by its header alone."""
    with _opened(data) as image:
        turn = _orientation(image, "the picture")
        return image.size[::-1] if turn is not None and turn.name in _SIDEWAYS else image.size


def extension(data: bytes) -> str:
    """``png`` or ``jpg``: what a shard's member with these bytes is called."""
    return "png" if data.startswith(b"\x89PNG\r\n") else "jpg"


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _opened(data: bytes) -> Image:
    from PIL import Image as Images
    from PIL import UnidentifiedImageError

    try:
        return Images.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise OSError(f"it is no picture of {', '.join(FORMATS)}, or damaged at its beginning") from None


def _verify_png(data: bytes) -> None:
    """Compares the checksums of all chunks, which decoding does not."""
    with _opened(data) as image:
        image.verify()


def _check(image: Image, where: str) -> None:
    """BadSample for a picture that is too large, too long, or several."""
    width, height = image.size
    shape = f"{where} has {width:,} × {height:,} pixels"
    if min(width, height) < 1:
        raise BadSample("odd-image", shape)
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise BadSample("odd-image", f"{shape}; a side may have {MAX_SIDE:,} and a picture {MAX_PIXELS:,}")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise BadSample("odd-image", f"{shape}; a side may be {MAX_RATIO} times the other")
    # The further images of an MPO file are a camera's previews and depth maps; its first is the picture.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise BadSample(
            "odd-image", f"{where} is an animation or a document of several pages ({image.format}); give one of them"
        )


def _picture(image: Image, where: str) -> Picture:
    image.load()  # a truncated file raises here and not later
    kind, mode, turn = image.format or "", image.mode, _orientation(image, where)
    opaque = not image.has_transparency_data
    if mode.startswith("I;16") or (mode == "I" and kind == "PPM"):
        shown = _from_sixteen_bits(image, where)
    elif not opaque:
        shown = _over_white(image)
    elif mode in _EIGHT_BIT:
        shown = image.convert("RGB")
    else:
        raise BadSample(
            "odd-image",
            f"{where} has values of Pillow's mode {mode}, which have no range of their own: save it with 8 or 16 bits a channel",
        )
    plain = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png"}.get(kind, "")
    if turn is not None:
        shown = shown.transpose(turn)
    elif opaque and mode in ("1", "L", "P", "RGB"):
        return Picture(shown, plain)
    return Picture(shown)


def _orientation(image: Image, where: str) -> Transpose | None:
    """How a picture is turned upright, None where it is; BadSample when its EXIF is too broken to say."""
    from PIL import Image as Images

    # A TIFF Pillow has turned by itself. The mark in front stands there once or, by some programs, twice.
    told = b"" if image.format == "TIFF" else image.info.get("exif", b"").removeprefix(_MARK).removeprefix(_MARK)
    try:
        # Read anew: what Pillow met while it opened a JPEG, for its resolution, it has swallowed.
        exif = Images.Exif()
        exif.load(told)
        # Pillow's own knows XMP besides, and the text of a PNG.
        found = exif.get(_ORIENTATION) or image.getexif().get(_ORIENTATION)
    except Exception as error:  # SyntaxError, struct.error, ...
        raise BadSample("undecodable-image", f"{where}: its EXIF is broken ({_said(error)})") from None
    if found is None and told and not _is_whole(told):
        raise BadSample("undecodable-image", f"{where}: its EXIF is broken, so how it is turned is not known")
    turn = Images.Transpose
    turns = (
        None,
        turn.FLIP_LEFT_RIGHT,
        turn.ROTATE_180,
        turn.FLIP_TOP_BOTTOM,
        turn.TRANSPOSE,
        turn.ROTATE_270,
        turn.TRANSVERSE,
        turn.ROTATE_90,
    )
    return turns[found - 1] if isinstance(found, int) and 1 <= found <= 8 else None


def _is_whole(exif: bytes) -> bool:
    """Whether the directory of ``exif``, in which Pillow finds no orientation, is all there and has none. Pillow stops reading at
    the first damage, and passes over an entry whose value is not there, with a warning at most."""
    order = "<" if exif.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        return all(
            struct.unpack_from(f"{order}HHII", exif, start + 2 + 12 * n)[0] != _ORIENTATION for n in range(count)
        )
    except struct.error:
        return False


def _over_white(image: Image) -> Image:
    from PIL import Image as Images

    if image.mode == "La":
        image = image.convert("LA")
    image = image.convert("RGBA")
    white = Images.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.getchannel("A"))
    return white


def _from_sixteen_bits(image: Image, where: str) -> Image:
    import numpy as np
    from PIL import Image as Images

    tags = getattr(image, "tag_v2", {})
    if tags.get(258, (16,)) != (16,) or tags.get(262, 1) != 1:
        raise BadSample(
            "odd-image", f"{where} is a TIFF of {tags.get(258)} bits, or white at 0: save it with 8 or 16, black at 0"
        )
    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    if (clear := image.info.get("transparency")) is not None:
        grey[values == clear] = 255
    return Images.fromarray(grey).convert("RGB")
