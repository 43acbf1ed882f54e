"""Damage, drawn: bytes, blocks, tar headers whose sum is made right again, JSON, and headers of safetensors."""

import json
import random
import struct

BLOCK = 512
NUMBERS = (0, 1, -1, 2, 255, 256, 2**31, 2**32, 2**63, -(2**63), 10**40, 0.5, 1e308)
TEXTS = ("", ".", "..", "../x", "/etc/passwd", "\0", "\ud800", "ü" * 99, "x" * 70000, "a\nb", "F8_E4M3", "I64", "BF16")
VALUES = (*NUMBERS, *TEXTS, None, True, [], {}, [[]], {"": {}}, [0] * 9)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """``data`` with one to four damages of any kind."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice((_bits, _byte, _run, _cut, _insert, _blocks))(data, rng)
    return data


def _bits(data, rng):
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 8)) if out else 0):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _byte(data, rng):
    out = bytearray(data)
    if out:
        out[rng.randrange(len(out))] = rng.choice((0, 0xFF, 0x80, 0x7F, ord("-"), ord("9"), ord(" "), ord("/")))
    return bytes(out)


def _run(data, rng):
    at, length = rng.randrange(len(data) + 1), rng.choice((1, 8, 64, 512, 4096))
    return data[:at] + bytes([rng.randrange(256)]) * min(length, len(data) - at) + data[at + length :]


def _cut(data, rng):
    at = rng.randrange(len(data) + 1)
    return rng.choice((data[:at], data[at:], data[: at - at % BLOCK]))


def _insert(data, rng):
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 7, 512))) + data[at:]


def _blocks(data, rng):
    """Blocks left out, given twice, or in another order."""
    blocks = [data[i : i + BLOCK] for i in range(0, len(data), BLOCK)]
    if not blocks:
        return data
    first, length = rng.randrange(len(blocks)), rng.choice((1, 1, 2, 7))
    part = blocks[first : first + length]
    rest = blocks[:first] + blocks[first + length :]
    at = rng.randrange(len(rest) + 1)
    return b"".join(rng.choice((rest, blocks[:at] + part + blocks[at:], rest[:at] + part + rest[at:])))


FIELDS = {
    "name": (0, 100),
    "mode": (100, 108),
    "size": (124, 136),
    "sum": (148, 156),
    "type": (156, 157),
    "link": (157, 257),
}
FIELDS |= {"magic": (257, 265), "owner": (265, 297), "prefix": (345, 500)}
KINDS = b"01234567LKxgSVMXN\0 "


def tar(data: bytes, rng: random.Random) -> bytes:
    """A tar with one field of one header changed and its sum made right, or just damaged."""
    heads = [at for at in range(0, len(data) - BLOCK + 1, BLOCK) if data[at + 257 : at + 262] == b"ustar"]
    if not heads or rng.random() < 0.4:
        return damaged(data, rng)
    at = rng.choice(heads)
    head = bytearray(data[at : at + BLOCK])
    field = rng.choice(list(FIELDS))
    first, last = FIELDS[field]
    if field == "type":
        head[first] = rng.choice(KINDS)
    elif field == "size":
        number = rng.choice((0, 1, 511, 513, 2**20, 2**33, 8**11 - 1))
        coded = b"%011o\0" % (number % 8**11)
        negative = (-rng.choice((1, 512, 1024, 2**40)) % 256**12).to_bytes(12, "big")
        head[first:last] = rng.choice((coded, negative, b"\x80" + rng.randbytes(11), b"-0000000777\0", b"9" * 12))
    elif field in ("name", "prefix", "link"):
        texts = (
            b"../x.0.jpg",
            b"/x.0.jpg",
            b"._x",
            b"x",
            b"\xff.0.jpg",
            b"a/../b.1.jpg",
            b"./y.pair.json",
            rng.randbytes(last - first),
        )
        head[first:last] = rng.choice(texts)[: last - first].ljust(last - first, b"\0")
    else:
        head[first:last] = rng.randbytes(last - first)
    if rng.random() < 0.95:
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % (sum(head) % 8**6)
    return data[:at] + bytes(head) + data[at + BLOCK :]


def tree(value, rng: random.Random):
    """JSON with one node changed, left out, or given anew."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        name = rng.choice(list(value))
        out = dict(value)
        match rng.randrange(6):
            case 0:
                del out[name]
            case 1:
                out[rng.choice([t for t in TEXTS if isinstance(t, str)])] = out.pop(name)
            case _:
                out[name] = tree(out[name], rng)
        return out
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return rng.choice(
            (value[:at] + value[at + 1 :], value + [value[at]], [*value[:at], tree(value[at], rng), *value[at + 1 :]])
        )
    if isinstance(value, (int, float)) and not isinstance(value, bool) and rng.random() < 0.4:
        return value + rng.choice((1, -1, 512))
    return rng.choice(VALUES)


def as_json(data: bytes, rng: random.Random) -> bytes:
    """A JSON file, changed as a tree or as bytes."""
    match rng.randrange(8):
        case 0 | 1:
            return damaged(data, rng)
        case 2:
            return rng.choice(
                (b"", b"[" * 100000, b'{"a":' * 20000, b"null", b"NaN", b"1" * 5000, b"\xef\xbb\xbf" + data, data * 2)
            )
    try:
        return json.dumps(tree(json.loads(data), rng)).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):  # damaged before
        return damaged(data, rng)


def safetensors(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with its header changed as a tree, its length changed, or just damaged."""
    (length,) = struct.unpack("<Q", data[:8].ljust(8, b"\0"))
    if length > len(data):  # damaged before
        return damaged(data, rng)
    match rng.randrange(6):
        case 0:
            return damaged(data, rng)
        case 1:
            odd = rng.choice((0, 1, length - 1, length + 1, 2**31, 2**40, 2**63, 2**64 - 1))
            return struct.pack("<Q", odd) + data[8:]
        case 2:
            return data[: rng.randrange(8 + length)]
        case _:
            header = as_json(data[8 : 8 + length].rstrip(), rng)
            return struct.pack("<Q", len(header)) + header + data[8 + length :]
