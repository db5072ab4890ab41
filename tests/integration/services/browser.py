"""A real browser without a window, and what the picture that it takes looks like."""

from __future__ import annotations

import collections
import dataclasses
import os
import re
import struct
import subprocess
import zlib
from typing import TYPE_CHECKING, Final

from tests.integration.services.process import ServiceError
from tests.integration.services.tools import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Colour = tuple[int, int, int]

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_CHANNELS: Final = {2: 3, 6: 4}  # RGB and RGBA
_MESSAGE: Final = re.compile(r"^\[[^\]]*:CONSOLE:\d+\] (.*)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a browser made of a page: its picture, its document as HTML, and what it wrote on the console."""

    picture: bytes
    document: str
    messages: list[str]


class Browser:
    """A Chromium with its files in `directory`; each page is opened by a new one."""

    def __init__(self, directory: Path) -> None:
        self._binary = require("chromium")
        self._directory = directory

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> Seen:
        """Shows a page, in a window of this size."""
        self._directory.mkdir(parents=True, exist_ok=True)
        picture = self._directory / "picture.png"
        picture.unlink(missing_ok=True)
        options = [
            "--headless=new",
            "--no-sandbox",  # which does not start in most containers; all that it opens is our own
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--force-color-profile=srgb",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--user-data-dir={self._directory / 'profile'}",
            f"--window-size={width},{height}",
            "--enable-logging=stderr",
            f"--screenshot={picture}",
            "--dump-dom",
        ]
        environment = {"HOME": str(self._directory), "PATH": os.environ["PATH"]}
        done = subprocess.run(
            [self._binary, *options, url], capture_output=True, env=environment, timeout=60, check=False
        )
        errors = done.stderr.decode(errors="replace")
        if done.returncode or not picture.exists():
            raise ServiceError(f"{self._binary} ended with {done.returncode}; it wrote:\n{errors}")
        return Seen(picture.read_bytes(), done.stdout.decode(), _MESSAGE.findall(errors))


@dataclasses.dataclass(frozen=True)
class Picture:
    """The pixels of a picture: for each line three bytes a pixel."""

    width: int
    lines: list[bytes]

    @property
    def height(self) -> int:
        """Its lines."""
        return len(self.lines)

    def colours(self) -> collections.Counter[Colour]:
        """How many pixels have which colour."""
        return collections.Counter(pixel for line in self.lines for pixel in _pixels(line))

    def column(self, x: int) -> set[Colour]:
        """The colours of one column."""
        return {(line[3 * x], line[3 * x + 1], line[3 * x + 2]) for line in self.lines}


def read_png(data: bytes) -> Picture:
    """The pixels of a PNG as browsers write it: eight bits a channel, not interlaced, its transparency left out.

    Raises:
        ValueError: it is something else.
    """
    chunks = dict[bytes, bytes]()
    for kind, content in _chunks(data):
        chunks[kind] = chunks.get(kind, b"") + content
    width, height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if depth != 8 or interlaced or colours not in _CHANNELS:
        raise ValueError(f"not a plain PNG: {depth} bits, colours {colours}, interlaced {interlaced}")
    size, raw = _CHANNELS[colours], zlib.decompress(chunks[b"IDAT"])
    stride = width * size
    if len(raw) != height * (stride + 1):
        raise ValueError("pixels are missing")
    lines, line = [], bytes(stride)
    for start in range(0, len(raw), stride + 1):
        line = _unfiltered(raw[start], raw[start + 1 : start + 1 + stride], line, size)
        lines.append(line if size == 3 else _without_alpha(line))
    return Picture(width, lines)


def write_png(picture: Picture, most: int = 256) -> bytes:
    """A PNG with so many colours, each other one replaced by the nearest of them: small."""
    kept = _kept(picture.colours(), most)
    palette = sorted(set(kept.values()))
    number = {colour: at for at, colour in enumerate(palette)}
    index = {colour: number[one] for colour, one in kept.items()}
    lines = b"".join(b"\0" + bytes(index[pixel] for pixel in _pixels(line)) for line in picture.lines)
    header = struct.pack(">IIBBBBB", picture.width, picture.height, 8, 3, 0, 0, 0)
    parts = [
        (b"IHDR", header),
        (b"PLTE", bytes(value for colour in palette for value in colour)),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    ]
    return _PNG + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    if not data.startswith(_PNG):
        raise ValueError("not a PNG")
    at = len(_PNG)
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, at + 8 + length)
        if zlib.crc32(kind + content) != checksum:
            raise ValueError(f"the chunk {kind!r} is damaged")
        yield kind, content
        at += length + 12


def _unfiltered(kind: int, line: bytes, above: bytes, size: int) -> bytes:
    """A line as it was before its filter, see chapter 9 of the PNG specification."""
    if kind == 0:
        return line
    if kind == 2:
        return bytes((value + up) & 255 for value, up in zip(line, above, strict=True))
    made = bytearray(len(line))
    for place, value in enumerate(line):
        left = made[place - size] if place >= size else 0
        up = above[place]
        if kind == 1:
            predicted = left
        elif kind == 3:
            predicted = (left + up) // 2
        else:
            predicted = _paeth(left, up, above[place - size] if place >= size else 0)
        made[place] = (value + predicted) & 255
    return bytes(made)


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda value: abs(guess - value))


def _without_alpha(line: bytes) -> bytes:
    kept = bytearray(len(line) // 4 * 3)
    kept[0::3], kept[1::3], kept[2::3] = line[0::4], line[1::4], line[2::4]
    return bytes(kept)


def _pixels(line: bytes) -> Iterator[Colour]:
    return zip(line[0::3], line[1::3], line[2::3], strict=True)


def _kept(counted: collections.Counter[Colour], most: int) -> dict[Colour, Colour]:
    """For each colour the one that stands for it: those are kept that would be missed most."""
    ((first, _),) = counted.most_common(1)
    kept = {colour: (_apart(first, colour), first) for colour in counted}
    for _ in range(most - 1):
        worst = max(kept, key=lambda colour: counted[colour] * kept[colour][0])
        if not kept[worst][0]:
            break
        for colour, (far, _) in kept.items():
            if (near := _apart(worst, colour)) < far:
                kept[colour] = near, worst
    return {colour: one for colour, (_, one) in kept.items()}


def _apart(one: Colour, other: Colour) -> int:
    return sum((mine - theirs) ** 2 for mine, theirs in zip(one, other, strict=True))
