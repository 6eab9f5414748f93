"""Mutations that keep a format whole, so that what lies behind the first check is reached."""

from __future__ import annotations

import gzip
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import atheris

Mutator = Callable[[bytes, int, int], bytes]

ODD: tuple[Any, ...] = (None, True, -1, 0, 1, 2, 255, 2**31, 2**63, 10**30, 0.5, -1e308, 1e308, float("nan"), float("inf"), "",
                        "x", "gap", "5.0", "../../x", "\x1b[31m", "é" * 40, "\ud800", "a\nb", [], {}, [1], ["gap"], {"gap": 1.0},
                        [[1, 2], [3]], {"x": {}})
"""What a value in JSON may be replaced by."""


def as_json(data: bytes, longest: int, seed: int) -> bytes:
    """Change a value somewhere in it, leave it out, or put another in."""
    return _half(data, longest, seed, lambda chance: json.dumps(changed(json.loads(data), chance)).encode())


def as_safetensors(data: bytes, longest: int, seed: int) -> bytes:
    """The same to the header, whose length stands in front."""

    def change(chance: random.Random) -> bytes:
        (length,) = struct.unpack("<Q", data[:8])
        header = json.dumps(changed(json.loads(data[8 : 8 + length]), chance)).encode()
        return struct.pack("<Q", len(header)) + header + data[8 + length :]

    return _half(data, longest, seed, change)


def as_gzip(data: bytes, longest: int, seed: int) -> bytes:
    """Anything to what is compressed."""
    return _half(data, longest, seed,
                 lambda chance: gzip.compress(atheris.Mutate(gzip.decompress(data)[:longest], longest // 2), 1))


def as_zip(data: bytes, longest: int, seed: int) -> bytes:
    """Anything to one of the files in it."""

    def change(chance: random.Random) -> bytes:
        made = BytesIO()
        with zipfile.ZipFile(BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
            names = old.namelist()
            chosen = chance.choice(names)
            for name in names:
                content = old.read(name)
                new.writestr(name, atheris.Mutate(content, longest // 4) if name == chosen else content,
                             chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
        return made.getvalue()

    return _half(data, longest, seed, change)


def as_png(data: bytes, longest: int, seed: int) -> bytes:
    """Anything to one of the chunks, whose checksum is put right."""

    def change(chance: random.Random) -> bytes:
        chunks, at = [], 8
        while at + 12 <= len(data):
            (length,) = struct.unpack(">I", data[at : at + 4])
            chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
            at += 12 + length
        number = chance.randrange(len(chunks))
        kind, content = chunks[number]
        chunks[number] = kind, atheris.Mutate(content, max(longest // 2, 1))
        return data[:8] + b"".join(struct.pack(">I", len(content)) + kind + content
                                   + struct.pack(">I", zlib.crc32(kind + content)) for kind, content in chunks)

    return _half(data, longest, seed, change)


def _half(data: bytes, longest: int, seed: int, change: Callable[[random.Random], bytes]) -> bytes:
    """What ``change`` makes of it, every other time, and if it can; else what libFuzzer does."""
    chance = random.Random(seed)
    if chance.random() < 0.6:
        try:
            if len(made := change(chance)) <= longest:
                return made
        except Exception:  # it is not of this format any more
            pass
    return atheris.Mutate(data, longest)


def changed(value: Any, chance: random.Random) -> Any:
    """A copy that differs somewhere."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        what = chance.random()
        rest = {other: entry for other, entry in value.items() if other != key}
        if what < 0.05:
            return rest
        if what < 0.1:
            return {**value, str(chance.choice(ODD)): value[key]}
        return {**value, key: changed(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        what = chance.random()
        middle = [] if what < 0.1 else [value[place]] * 2 if what < 0.2 else [changed(value[place], chance)]
        return [*value[:place], *middle, *value[place + 1 :]]
    return chance.choice(ODD)
