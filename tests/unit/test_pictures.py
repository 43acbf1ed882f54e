"""Pictures as they come: what a model is shown of them, what they are known by, and what is refused by name."""

import base64
import io
import os
import re
import struct
import subprocess
import sys
import tarfile
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from places import ROOT

from svco.basics.errors import BadSample
from svco.basics.progress import silent
from svco.batches.encode import Encode
from svco.commands.data.build import BuildPlan, build
from svco.commands.data.corrupt import corrupt_pair
from svco.commands.data.records import Record
from svco.commands.data.verify import verify
from svco.commands.evaluation import generation
from svco.commands.evaluation.benchmarks import rows
from svco.commands.probe import page
from svco.data.pairs import Pair, PairText
from svco.data.pictures import BLANK, MAX_SIDE, as_png, decode_image, picture_size, read_picture, stored_alike
from svco.data.shards import ShardSet, write_shards
from svco.recipe.config import CorruptConfig

RAMP = np.linspace(0, 255, 40 * 60).reshape(40, 60)
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
ORIENTATION = 0x0112


def filed(image, form="PNG", **how):
    buffer = io.BytesIO()
    image.save(buffer, form, **how)
    return buffer.getvalue()


def pixels(data):
    return np.asarray(read_picture(data, "x").image)


def ramp(mode):
    """The ramp from black to white in ``mode``, over its range."""
    if mode.startswith("I;16"):
        return Image.fromarray((RAMP * 257).astype({"I;16": "<u2", "I;16B": ">u2"}[mode]))
    if mode in ("I", "F"):
        return Image.fromarray(RAMP.astype(np.uint8)).convert(mode)
    via = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode, mode)
    return Image.fromarray(RAMP.astype(np.uint8)).convert("RGB").convert(via).convert(mode)


def half_clear(mode):
    """Black, its right half fully transparent."""
    shown = np.zeros((40, 60, 4), np.uint8)
    shown[:, :30, 3] = 255
    if mode == "P":
        palette = Image.new("P", (60, 40), 0)
        palette.putpalette([0, 0, 0, 10, 10, 10])
        palette.paste(1, (30, 0, 60, 40))
        return palette
    return Image.fromarray(shown).convert(mode)


@pytest.mark.parametrize(
    ("mode", "form", "apart"),
    [
        *[(mode, "PNG", 0) for mode in ("L", "LA", "RGB", "RGBA")],
        *[(mode, "PNG", 1) for mode in ("I;16", "I;16B")],
        *[(mode, "TIFF", 1) for mode in ("L", "RGB", "RGBA", "I;16", "I;16B", "CMYK", "YCbCr")],
        *[(mode, "PPM", 1) for mode in ("L", "RGB", "I;16")],
        *[(mode, "JPEG", 4) for mode in ("L", "RGB", "CMYK")],
        *[(mode, form, 0) for mode, form in (("L", "GIF"), ("RGB", "BMP"))],
        ("1", "PNG", 255),
        ("P", "PNG", 51),  # Pillow's palette of the web
    ],
)
def test_a_ramp_is_a_ramp_in_every_mode(mode, form, apart):
    shown = pixels(filed(ramp(mode), form)).astype(int)
    assert shown.shape == (40, 60, 3) and np.abs(shown - RAMP[..., None].astype(np.uint8)).max() <= apart
    assert abs(shown.mean() - 127) < 5


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I;16"]
)
def test_images_in_memory_of_every_mode(mode):
    assert abs(pixels(as_png(ramp(mode), "x")).mean() - 127) < 5


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_without_a_range_are_refused_by_name(mode):
    for made in (lambda: read_picture(filed(ramp(mode), "TIFF"), "a.tif"), lambda: as_png(ramp(mode), "a.tif")):
        with pytest.raises(BadSample, match=f"a.tif has values of Pillow's mode {mode}.*8 or 16 bits") as refused:
            made()
        assert refused.value.reason == "odd-image"


@pytest.mark.parametrize(
    "data",
    [
        *[filed(half_clear(mode)) for mode in ("RGBA", "LA")],
        filed(half_clear("P"), transparency=1),
        filed(half_clear("P"), "GIF", transparency=1),
        filed(Image.fromarray(np.repeat([[0] * 30 + [9] * 30], 40, 0).astype(np.uint8)), transparency=9),
        filed(Image.fromarray(np.repeat([[0] * 30 + [999] * 30], 40, 0).astype(np.uint16)), transparency=999),
        filed(half_clear("RGBA"), "WEBP", lossless=True, exact=True),
    ],
    ids=["RGBA", "LA", "palette", "GIF", "grey", "grey of 16 bits", "WebP"],
)
def test_what_is_transparent_is_white(data):
    shown = pixels(data)
    assert (shown[:, :30] == 0).all() and (shown[:, 30:] == 255).all()
    assert not read_picture(data, "x").plain, "other readers show it otherwise"


def turned(orientation, form, image=PHOTO):
    """A file whose EXIF says how it is to be turned, upright then ``image``."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that undoes each, in Pillow's numbers
    stored = image.transpose(Image.Transpose(back[orientation])) if orientation > 1 else image
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    how = {"lossless": True} if form == "WEBP" else {"quality": 100, "subsampling": 0} if form == "JPEG" else {}
    return filed(stored, form, exif=exif.tobytes(), **how)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright(orientation, form):
    picture = read_picture(turned(orientation, form), "x")
    assert picture.size == PHOTO.size
    assert np.abs(np.asarray(picture.image).astype(int) - np.asarray(PHOTO)).mean() < (1.5 if form == "JPEG" else 1e-9)
    if orientation > 1 and form != "TIFF":  # the control: Pillow alone does not turn these
        raw = np.asarray(Image.open(io.BytesIO(turned(orientation, form))).convert("RGB"))
        assert raw.shape != (40, 60, 3) or np.abs(raw.astype(int) - np.asarray(PHOTO)).mean() > 30
        assert not picture.plain


def with_exif(exif):
    """The photograph as JPEG with an EXIF segment of these bytes."""
    data, body = filed(PHOTO, "JPEG"), b"Exif\0\0" + exif
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def entries(*tags, order="<"):
    """An EXIF directory of (tag, type, count, value)."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    rows = b"".join(struct.pack(f"{order}HHI4s", tag, kind, count, value) for tag, kind, count, value in tags)
    return head + struct.pack(f"{order}IH", 8, len(tags)) + rows + b"\0\0\0\0"


TURN = (ORIENTATION, 3, 1, struct.pack("<HH", 6, 0))


@pytest.mark.parametrize(
    ("exif", "size"),
    [
        (entries(TURN), (40, 60)),
        (entries(TURN, (0x010F, 2, 400, struct.pack("<I", 9999))), (40, 60)),  # a maker's name that is not there
        (entries((0x010F, 2, 400, struct.pack("<I", 9999))), (60, 40)),
        (entries((ORIENTATION, 3, 1, struct.pack("<HH", 77, 0))), (60, 40)),  # no orientation that there is
        (entries((ORIENTATION, 2, 2, b"6\0\0\0")), (60, 40)),  # text
        (b"", (60, 40)),
        (b"no TIFF at all, but long enough", None),
        (b"II", None),
        (entries((ORIENTATION, 3, 400, struct.pack("<I", 9999))), None),
        (entries(TURN)[:12], None),
        (b"II*\0\xff\xff\xff\xff", None),
    ],
)
def test_broken_exif_is_read_where_it_says_enough_and_named_where_not(exif, size):
    if size:
        assert read_picture(with_exif(exif), "a.jpg").size == size
        return
    with pytest.raises(BadSample, match="a.jpg: its EXIF is broken") as bad:
        read_picture(with_exif(exif), "a.jpg")
    assert bad.value.reason == "undecodable-image"


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, *extra, rows=b"", depth=8, colour=2):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def frames(form, **how):
    other = PHOTO.transpose(Image.Transpose.ROTATE_180)
    return filed(PHOTO, form, save_all=True, append_images=[other], **how)


def odd_files():
    """Name -> (file, what is said of it)."""
    deflated = zlib.compress(b"\0" * 80_000_000)
    sides = filed(Image.new("L", (65_000, 2)), "JPEG")
    return {
        "70,000 pixels": (png(70_000, 10, rows=deflated), "70,000 × 10 pixels; a side may have"),
        "a JPEG as long as one can be": (sides, "65,000 × 2 pixels"),
        "a strip": (filed(Image.new("L", (1000, 4))), "a side may be 200 times the other"),
        "a bomb": (png(30_000, 30_000, rows=deflated), "too large"),
        "a bomb that Pillow refuses": (
            png(2**31 - 1, 2**31 - 1, rows=deflated),
            "2,147,483,647 × |decompression bomb|too large",
        ),
        "no side": (png(0, 10, rows=deflated), "cannot be decoded|pixels"),
        "a bomb of text": (png(4, 4, chunk(b"zTXt", b"k\0\0" + deflated)), "cannot be decoded"),
        "a bomb of a profile": (png(4, 4, chunk(b"iCCP", b"k\0\0" + deflated)), "cannot be decoded"),
        "too few rows": (png(8000, 8000, rows=zlib.compress(b"\0" * 99)), "cannot be decoded"),
        "an animated GIF": (frames("GIF"), r"several pages \(GIF\)"),
        "an animated PNG": (frames("PNG"), r"several pages \(PNG\)"),
        "an animated WebP": (frames("WEBP"), r"several pages \(WEBP\)"),
        "a document": (frames("TIFF"), r"several pages \(TIFF\)"),
        "white at 0": (filed(ramp("I;16"), "TIFF", tiffinfo={262: 0}), "white at 0"),
        "no picture": (b"<html>", "no picture of JPEG"),
        "nothing": (b"", "no picture of JPEG"),
        "a program for a printer": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture of JPEG"),
    }


LARGE = """
import resource, sys
from svco.basics.errors import BadSample
from svco.data import pictures
sys.path.insert(0, "tests/unit")
import test_pictures
largest, larger = (test_pictures.transparent(8192, height) for height in (8192, 16384))
if sys.argv[1] == "unbounded":
    pictures.MAX_PIXELS = 2**40
with open("/proc/self/statm") as statm:
    had = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (had + 10**9, had + 10**9))
for name, (data, said) in (test_pictures.odd_files() | {"larger": (larger, "")}).items():
    try:
        pictures.read_picture(data, name)
        print("read", name)
    except BadSample as error:
        assert "MemoryError" not in str(error), error
print(pictures.read_picture(largest, "largest").image.getpixel((5, 5)))
"""


def transparent(width, height):
    """A PNG of one colour, of which nothing but a row is ever held."""
    deflate = zlib.compressobj(1)
    rows = [deflate.compress(b"\0" + b"\x09" * 4 * width) for _ in range(height)]
    return png(width, height, rows=b"".join([*rows, deflate.flush()]), colour=6)


def test_odd_pictures_are_named():
    for name, (data, said) in odd_files().items():
        with pytest.raises(BadSample, match=said) as bad:
            read_picture(data, name)
        assert str(bad.value).startswith(name)


@pytest.mark.parametrize("bound", ["bounded", "unbounded"])
def test_memory_is_bounded(bound):
    """1 GB above what the process has, whatever torch's libraries take of it, is enough for every bomb and for the largest
    picture, transparent at that; and without the bound for one twice as large it is not."""
    line = [sys.executable, "-c", LARGE, bound]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env=environment)
    if bound == "bounded":
        assert (done.stdout, done.returncode) == ("(246, 246, 246)\n", 0), done.stderr
    else:
        assert done.returncode and "larger cannot be decoded (MemoryError" in done.stderr


def test_a_camera_s_further_images_are_no_animation():
    assert read_picture(frames("MPO"), "x").plain == "jpg"


SEEDS = {
    "JPEG": filed(PHOTO, "JPEG", quality=60),
    "turned JPEG": turned(6, "JPEG"),
    "progressive JPEG": filed(PHOTO, "JPEG", progressive=True, quality=60),
    "PNG": filed(PHOTO),
    "turned PNG": turned(6, "PNG"),
    "palette": filed(half_clear("P"), transparency=1),
    "16 bits": filed(ramp("I;16")),
    "GIF": filed(PHOTO, "GIF"),
    "WebP": filed(PHOTO, "WEBP"),
    "BMP": filed(PHOTO, "BMP"),
    "TIFF": filed(PHOTO, "TIFF", compression="tiff_lzw"),
    "PPM": filed(PHOTO, "PPM"),
}
MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "drop", "repeat", "put"]), st.floats(0, 1), st.binary(min_size=1, max_size=4)
    ),
    min_size=1,
    max_size=4,
)


def mutated(data, mutations):
    for kind, where, value in mutations:
        # Headers decide more than the rest: half of the places lie in the first 200 bytes.
        place = int(where * 2 * min(200, len(data))) if where < 0.5 else int((where - 0.5) * 2 * len(data))
        head, tail = data[:place], data[place:]
        data = {
            "flip": head + bytes(a ^ b for a, b in zip(tail, value)) + tail[len(value) :],
            "cut": head,
            "drop": head + tail[len(value) :],
            "repeat": head + tail[:64] + tail,
            "put": head + value + tail,
        }[kind]
    return data


@settings(max_examples=400, deadline=5000, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(SEEDS)), MUTATIONS)
def test_mutated_files_are_read_or_named(name, mutations):
    """Never another exception, never a picture beyond the bounds; and a PNG never is another picture than before."""
    try:
        picture = read_picture(mutated(SEEDS[name], mutations), "a file")
    except BadSample as error:
        assert str(error).startswith("a file") and "\n" not in str(error)
        return
    assert picture.image.mode == "RGB" and max(picture.size) <= MAX_SIDE
    if SEEDS[name].startswith(b"\x89PNG"):
        assert picture.digest == read_picture(SEEDS[name], "x").digest


def test_a_changed_png_would_be_seen():
    """The control: with its checksum mended, a changed PNG is another picture, and without it Pillow alone sees nothing."""
    rows = bytearray(b"".join(b"\0" + row.tobytes() for row in np.asarray(PHOTO)))
    before = png(60, 40, rows=zlib.compress(bytes(rows), 0))
    place = before.index(b"IDAT") + 500
    changed = before[:place] + bytes([before[place] ^ 1]) + before[place + 1 :]
    rows[500] ^= 1
    mended = png(60, 40, rows=zlib.compress(bytes(rows), 0))
    with pytest.raises(BadSample):
        read_picture(changed, "x")
    assert read_picture(mended, "x").digest != read_picture(before, "x").digest


def encodings(image):
    """Files that show ``image``, an RGB one, to the last bit."""
    told = PngImagePlugin.PngInfo()
    told.add_text("Comment", "other metadata")
    opaque = image.copy()
    opaque.putalpha(255)
    return {
        "png": filed(image),
        "text.png": filed(image, pnginfo=told, compress_level=1),
        "opaque.png": filed(opaque),
        "turned.png": turned(6, "PNG", image),
        "turned.tiff": turned(8, "TIFF", image),
        "bmp": filed(image, "BMP"),
        "webp": filed(image, "WEBP", lossless=True),
    }


def test_a_picture_is_known_by_its_pixels():
    known = {name: read_picture(data, name).digest for name, data in encodings(PHOTO).items()}
    decoded = Image.open(io.BytesIO(SEEDS["JPEG"])).convert("RGB")
    assert len(set(known.values())) == 1
    assert read_picture(SEEDS["JPEG"], "x").digest == read_picture(filed(decoded), "x").digest
    others = [
        PHOTO,
        PHOTO.transpose(Image.Transpose.ROTATE_90),
        decoded,
        Image.new("RGB", (9, 9)),
        Image.new("RGB", (9, 8)),
    ]
    touched = PHOTO.copy()
    touched.putpixel((0, 0), (1, 2, 3))
    digests = [read_picture(filed(image), "x").digest for image in (*others, touched)]
    reshaped = Image.frombytes("RGB", (40, 60), PHOTO.tobytes())
    assert len({*digests, read_picture(filed(reshaped), "x").digest}) == 7
    assert [digest.startswith(BLANK) for digest in digests] == [False, False, False, True, True, False]


def test_both_sides_of_a_pair_are_stored_alike_and_without_loss():
    """Thin coloured strokes are what JPEG's usual subsampling loses most of."""
    strokes = np.full((96, 96, 3), 255, np.uint8)
    strokes[::6], strokes[:, ::8] = (255, 0, 0), (0, 0, 255)
    drawn = Image.fromarray(strokes)
    jpeg, loss = filed(PHOTO, "JPEG"), np.abs(pixels(filed(drawn, "JPEG", quality=95)).astype(int) - strokes)
    assert loss.mean() > 10, "the control"
    files = {"jpg": jpeg, "turned": turned(6, "JPEG"), **encodings(drawn), "16": filed(ramp("I;16"))}
    for first in files.values():
        for second in files.values():
            stored = stored_alike(first, second, "x")
            assert [read_picture(data, "x").digest for data in stored] == [
                read_picture(d, "x").digest for d in (first, second)
            ]
            assert len({data[:4] for data in stored}) == 1 and all(read_picture(data, "x").plain for data in stored)
    assert stored_alike(jpeg, jpeg, "x") == (jpeg, jpeg)
    assert stored_alike(files["text.png"], files["png"], "x") == (files["text.png"], files["png"])


POOL = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)) for seed in range(8)
] + [Image.new("RGB", (8, 6), (seed, 0, 0)) for seed in range(2)]
KINDS = sorted(encodings(POOL[0]))
SIDE = st.tuples(st.integers(0, len(POOL) - 1), st.sampled_from(KINDS))
DRAWN = st.tuples(SIDE, SIDE, st.sampled_from(["What?", "Which?"]), st.sampled_from([None, "You see."]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(DRAWN, min_size=3, max_size=14), st.integers(0, 3))
def test_verify_finds_nothing_that_build_promised_away(tmp_path_factory, drawn, seed):
    """No pair twice and no picture in two splits, whatever files a picture comes in: equal to what the pixels alone say."""
    root = tmp_path_factory.mktemp("built")
    for number, image in enumerate(POOL):
        for kind, data in encodings(image).items():
            (root / f"{number}.{kind}").write_bytes(data)
    records = [
        Record(query=query, images=(f"{a}.{x}", f"{b}.{y}"), responses=("This.", "That."), system=system)
        for (a, x), (b, y), query, system in drawn
    ]
    records.append(Record(query="Why?", images=("0.png", "1.png"), responses=("This.", "That.")))
    manifest = build(records, root, root / "shards", BuildPlan(seed, 0.2, 0.2), silent).manifest
    problems = verify([str(root / "shards")], root / "cache", silent).problems
    assert [problem for problem in problems if not problem.startswith("odd size")] == []
    contrasts = {(a, b, q, s) for (a, _), (b, _), q, s in drawn if a != b}
    assert sum(manifest["pairs"].values()) == len(contrasts) + 1


def test_every_entrance_sees_the_same_picture(tmp_path, family):
    """A shard from elsewhere with one picture twice, as a turned JPEG and upright and transparent in parts: sizes, digests, what
    training encodes, what a model is asked about, what pages show."""
    upright = read_picture(turned(6, "JPEG"), "x").image
    sides = (turned(6, "JPEG"), filed(upright))
    pair = Pair(PairText("one", "What?", ("This.", "That.")), sides)
    opened = ShardSet.open([str(path) for path in write_shards([pair], tmp_path, "mine", 9)], tmp_path / "cache")
    assert opened.image_sizes(0) == (upright.size, upright.size) == tuple(map(picture_size, sides))
    assert len(set(opened.indices[0].entries[0].pixels)) == 1
    seen = [*Encode(family, lambda encoded, _: encoded[0].images, equal_pictures=True)([opened.read(0)])[0]]
    seen += [generation.image_of(opened, 0, side) for side in (0, 1)]
    seen += [rows.opener(data, "1")() for data in sides]
    seen += [decode_image(corrupt_pair(pair, CorruptConfig("crop"), side).images[0], "x") for side in (0, 1)]
    assert len({image.tobytes() for image in seen}) == 1 and {image.size for image in seen} == {upright.size}
    shown = [base64.b64decode(page.shown(data)["src"].partition(",")[2]) for data in sides]
    assert all(Image.open(io.BytesIO(data)).convert("RGB").tobytes() == upright.tobytes() for data in shown)
    assert opened.read(0).images == sides, "a PNG is stored and read as PNG"
    assert verify([str(tmp_path)], tmp_path / "cache", silent, equal_pictures=True).problems == []


def test_a_side_has_one_picture(tmp_path):
    (path,) = write_shards(
        [Pair(PairText("one", "What?", ("This.", "That.")), (filed(PHOTO), filed(PHOTO)))], tmp_path, "mine", 9
    )
    path.with_name(f"{path.name}.index.json").unlink()
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("one.0.jpg")
        member.size = len(SEEDS["JPEG"])
        archive.addfile(member, io.BytesIO(SEEDS["JPEG"]))
    with pytest.raises(BadSample, match="'one' has both 0.jpg and 0.png") as bad:
        ShardSet.open(str(path), tmp_path / "cache").read(0)
    assert bad.value.reason == "bad-schema"


def test_only_one_place_opens_pictures():
    opens = {
        str(path.relative_to(ROOT / "svco"))
        for path in (ROOT / "svco").rglob("*.py")
        if re.search(r"\bImages?\.open\(", path.read_text())
    }
    assert opens == {"data/pictures.py", "record/trackers.py"}, "the second reads what svco itself has drawn"
