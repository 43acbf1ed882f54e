"""A shard in which almost everything is wrong: a pair for every way in which one can be bad, among good ones."""

import io
import json
import tarfile

from PIL import Image

from svco.data.pairs import TEXT_MEMBER, encode_text
from svco.tiny_world.contrast import world_pairs

IMAGES = ("0.jpg", "1.jpg")
LONG = "The circle is red and the square is blue and "


def _png(data, level):
    """The same pixels in another file."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").save(stream, "PNG", compress_level=level)
    return stream.getvalue()


def _text(pair, **fields):
    record = json.loads(encode_text(pair.text)) | fields
    return {TEXT_MEMBER: json.dumps(record).encode()}


def _answers(pair, first, second="It is b."):
    return _text(pair, responses=[first, second])


MADE = {
    "no-json": ("bad-json", lambda p: {TEXT_MEMBER: b"{"}),
    "twice": (
        "bad-json",
        lambda p: {TEXT_MEMBER: b'{"schema": 1, "query": "a?", "query": "b?", "responses": ["a", "b"]}'},
    ),
    "no-text": ("missing-member", lambda p: {TEXT_MEMBER: None}),
    "one-image": ("missing-member", lambda p: {IMAGES[1]: None}),
    "list": ("bad-schema", lambda p: {TEXT_MEMBER: b"[]"}),
    "ids": ("bad-schema", lambda p: _text(p, ids=["a"])),
    "system": ("bad-schema", lambda p: _text(p, system=["You see."])),
    "source": ("bad-schema", lambda p: _text(p, source=7)),
    "misspelt": ("bad-schema", lambda p: _text(p, sytem="You see.")),
    "surrogate": ("bad-schema", lambda p: _text(p, query="a \ud83d ?")),
    "unseen-query": ("bad-schema", lambda p: _text(p, query="\u200b\u2060")),
    "unseen": ("empty-response", lambda p: _answers(p, "\u200b")),
    "same-answers": ("same-responses", lambda p: _answers(p, "It is b. ")),
    "same-files": ("same-images", lambda p: dict.fromkeys(IMAGES, p.images[0])),
    "same-pixels": ("same-images", lambda p: {m: _png(p.images[0], level) for m, level in zip(IMAGES, (1, 9))}),
    "cut-image": ("undecodable-image", lambda p: {IMAGES[0]: p.images[0][:-200]}),
    "no-image": ("undecodable-image", lambda p: {IMAGES[0]: b"GIF89a"}),
    "image-token": ("special-token", lambda p: _answers(p, "It is <image> a.")),
    "end-token": ("special-token", lambda p: _answers(p, "It is</s> a.")),
    "begin-token": ("special-token", lambda p: _text(p, system="<s>You see.")),
    "pad-token": ("special-token", lambda p: _answers(p, "It is a.", "It is <pad>.")),
    "image-query": ("special-token", lambda p: _text(p, query="<image>\nWhat is it?")),
    "long": ("long-query", lambda p: _text(p, query="Why? " * 200)),
    "same-when-cut": ("same-responses", lambda p: _answers(p, LONG * 20 + "a.", LONG * 20 + "b.")),
}
"""Key -> the reason, and a function from a good pair to the members that differ (None: left out)."""
OF_A_BASE = ("image-token", "end-token", "begin-token", "pad-token", "image-query", "long", "same-when-cut")
"""What only a base takes offence at."""
GOOD = 6
"""Good pairs among them."""


def write_bad_pairs(folder):
    """Writes the shard ``train-000000.tar`` into ``folder``; key -> reason of its bad pairs."""
    source = list(world_pairs("train", 0, len(MADE) + GOOD))
    folder.mkdir(parents=True)
    with tarfile.open(folder / "train-000000.tar", "w") as tar:
        for number, pair in enumerate(source):
            key, (_, change) = (list(MADE.items()) + [("", ("", lambda p: {}))] * GOOD)[number]
            members = dict(zip(IMAGES, pair.images)) | {TEXT_MEMBER: encode_text(pair.text)} | change(pair)
            for name, data in members.items():
                if data is not None:
                    member = tarfile.TarInfo(f"{key or f'good-{number}'}.{name}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return {key: reason for key, (reason, _) in MADE.items()}
