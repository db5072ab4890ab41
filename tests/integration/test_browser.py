"""What the tests of pages look with: a browser, its pictures, and the reader of HTML."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import pytest

from tests.integration.services.browser import Browser, Picture, read_png, write_png
from tests.integration.services.document import read_html

if TYPE_CHECKING:
    from pathlib import Path


def test_a_browser_tells_what_a_page_writes_on_the_console(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!DOCTYPE html><title>x</title><p>y</p><script>console.error('bad thing')</script>")
    seen = Browser(tmp_path / "browser").open(page.as_uri(), width=200, height=100)
    assert [message.partition(",")[0] for message in seen.messages] == ['"bad thing"']
    picture = read_png(seen.picture)
    assert (picture.width, picture.height) == (200, 100)
    assert picture.colours().most_common(1)[0][0] == (255, 255, 255)


@pytest.mark.parametrize("kind", range(5))
def test_a_picture_is_read_whatever_its_filter(kind: int) -> None:
    width, lines = 5, [bytes((7 * x * x + 31 * y) % 256 for x in range(15)) for y in range(4)]
    raw = b"".join(
        bytes([kind]) + filtered(kind, line, lines[y - 1] if y else bytes(15)) for y, line in enumerate(lines)
    )
    picture = read_png(png(struct.pack(">IIBBBBB", width, 4, 8, 2, 0, 0, 0), raw))
    assert (picture.width, picture.lines) == (width, lines)
    assert picture.column(1) == {tuple(line[3:6]) for line in lines}


def filtered(kind: int, line: bytes, above: bytes) -> bytes:
    """Chapter 9 of the PNG specification, the way there."""

    def predicted(x: int) -> int:
        left, up, corner = (line[x - 3] if x > 2 else 0), above[x], (above[x - 3] if x > 2 else 0)
        ways = [abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)]
        paeth = [left, up, corner][ways.index(min(ways))]
        return [0, left, up, (left + up) // 2, paeth][kind]

    return bytes((value - predicted(x)) % 256 for x, value in enumerate(line))


def png(header: bytes, raw: bytes) -> bytes:
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )


def test_a_picture_that_is_damaged_or_of_another_kind_is_refused() -> None:
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    whole = png(header, bytes(4))
    assert read_png(whole).lines == [bytes(3)]
    for bad in (b"GIF", whole.replace(b"IDAT", b"IDAX"), png(header, bytes(3)), png(header[:-1] + b"\1", bytes(4))):
        with pytest.raises(ValueError, match=r"PNG|damaged|missing"):
            read_png(bad)


def test_a_picture_with_few_colours_is_the_same_with_many_nearly() -> None:
    lines = [bytes(value for x in range(40) for value in (x * 6, y * 6, 0)) for y in range(40)]
    assert write_png(Picture(40, lines), 16).startswith(b"\x89PNG")
    assert len(write_png(Picture(40, lines), 16)) < len(write_png(Picture(40, lines), 256))


@pytest.mark.parametrize("text", ["<p>a<b>c</p>", "<div>", "</p>"])
def test_html_that_is_not_closed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"open|never closed"):
        read_html(text)
