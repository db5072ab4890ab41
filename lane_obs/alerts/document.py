"""YAML as people read it: keys in the order given, expressions in blocks. PyYAML has its home here."""

from __future__ import annotations

from typing import Any

import yaml


class Block(str):
    """Text that is written as a block of its own lines."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Writes a thing out each time: whoever reads one rule need not look for another."""
        return True


def _block(dumper: yaml.SafeDumper, text: Block) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|")


_Dumper.add_representer(Block, _block)


def to_yaml(comment: str, data: Any) -> str:
    """A YAML document.

    Args:
        comment: what stands above it.
        data: mappings, lists, text, numbers.
    """
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=1_000, allow_unicode=True)
    return "".join(f"# {line}\n" for line in comment.splitlines()) + text
