"""Changes that keep a format whole, so that what lies behind the first check is reached."""

from __future__ import annotations

import gzip
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from random import Random
from typing import Any

Edit = Callable[[bytes], bytes]
Inside = Callable[[bytes, Random, Edit], bytes]
"""An input, what decides where it is changed, and what changes bytes -> another input. Raises whatever it does where
the input is not of the format."""

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2, 255, 2**31, 2**63, 10**30, 0.5, -1e308, 1e308, float("nan"), float("inf"), "", "x", "gap",
    "5.0", "../../x", "\x1b[31m", "é" * 40, "\ud800", "a\nb", [], {}, [1], ["gap"], {"gap": 1.0}, [[1, 2], [3]])
"""What a value in JSON may be replaced by."""


def in_json(data: bytes, chance: Random, edit: Edit) -> bytes:
    """Another value somewhere in it, one less, or one more."""
    return json.dumps(changed(json.loads(data), chance)).encode()


def in_safetensors(data: bytes, chance: Random, edit: Edit) -> bytes:
    """The same in the header, whose length stands in front."""
    (length,) = struct.unpack("<Q", data[:8])
    header = in_json(data[8 : 8 + length], chance, edit)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def in_gzip(data: bytes, chance: Random, edit: Edit) -> bytes:
    """In what is compressed."""
    return gzip.compress(edit(gzip.decompress(data)), 1)


def in_zip(data: bytes, chance: Random, edit: Edit) -> bytes:
    """In one of the files."""
    made = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        names = old.namelist()
        chosen = chance.choice(names)
        for name in names:
            content = old.read(name)
            new.writestr(name, edit(content) if name == chosen else content,
                         chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    return made.getvalue()


def in_png(data: bytes, chance: Random, edit: Edit) -> bytes:
    """In one of the chunks, whose checksum is put right."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    number = chance.randrange(len(chunks))
    chunks[number] = chunks[number][0], edit(chunks[number][1])
    return data[:8] + b"".join(struct.pack(">I", len(content)) + kind + content
                               + struct.pack(">I", zlib.crc32(kind + content)) for kind, content in chunks)


def changed(value: Any, chance: Random) -> Any:
    """A copy that differs somewhere."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        what = chance.random()
        if what < 0.05:
            return {other: entry for other, entry in value.items() if other != key}
        if what < 0.1:
            return {**value, str(chance.choice(ODD)): value[key]}
        return {**value, key: changed(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        what = chance.random()
        middle = [] if what < 0.1 else [value[place]] * 2 if what < 0.2 else [changed(value[place], chance)]
        return [*value[:place], *middle, *value[place + 1 :]]
    return chance.choice(ODD)
