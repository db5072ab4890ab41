"""Reads HTML as a tree, to look for what a page says."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_VOID: Final = frozenset({"meta", "link", "br", "img", "input", "hr"})


@dataclasses.dataclass
class Element:
    """One element with what is in it: other elements, and text."""

    tag: str
    attributes: dict[str, str]
    content: list[Element | str] = dataclasses.field(default_factory=list)

    def all(self, tag: str = "", kind: str = "") -> list[Element]:
        """The elements below it with this tag and this class, in order."""
        return [
            one
            for one in self._below()
            if tag in ("", one.tag) and (not kind or kind in one.attributes.get("class", "").split())
        ]

    def one(self, tag: str = "", kind: str = "") -> Element:
        """The only element below it with this tag and this class."""
        (found,) = self.all(tag, kind)
        return found

    @property
    def text(self) -> str:
        """All its text, each run of white space as one space."""
        return " ".join("".join(self._texts()).split())

    def table(self) -> list[dict[str, Element]]:
        """The rows of a table, each with its cells by their headings."""
        heads = [head.text for head in self.one("thead").all("th")]
        rows = ([cell for cell in row.content if isinstance(cell, Element)] for row in self.one("tbody").all("tr"))
        return [dict(zip(heads, cells, strict=True)) for cells in rows]

    def _below(self) -> Iterator[Element]:
        for one in self.content:
            if isinstance(one, Element):
                yield one
                yield from one._below()

    def _texts(self) -> Iterator[str]:
        for one in self.content:
            if isinstance(one, Element):
                yield from one._texts()
            else:
                yield one


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].content.append(made)
        if tag not in _VOID:
            self.open.append(made)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].content.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if self.open[-1].tag != tag:
            raise ValueError(f"</{tag}> where <{self.open[-1].tag}> is open, in line {self.getpos()[0]}")
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].content.append(data)


def read_html(text: str) -> Element:
    """The tree of a page whose elements are all closed.

    Raises:
        ValueError: they are not.
    """
    reader = _Reader()
    reader.feed(text)
    reader.close()
    if len(reader.open) != 1:
        raise ValueError(f"never closed: {[one.tag for one in reader.open[1:]]}")
    return reader.open[0]
