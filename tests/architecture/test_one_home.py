"""What the library needs in several places has one home."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import lane_obs

PACKAGE = Path(lane_obs.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
TELLING = 1_000_000
"""A number as large as this is a fact about the world; two small ones are equal by chance."""


def numbers(module: Path) -> list[tuple[str, ast.expr]]:
    """Names in capitals that a module gives a number, with the number's expression."""
    found = []
    for node in ast.parse(module.read_text("utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(targets[0], ast.Name) and node.value is not None:
            name = targets[0].id
            if name.strip("_").isupper() and is_number(node.value):
                found.append((name, node.value))
    return found


def is_number(value: ast.expr) -> bool:
    parts = list(ast.walk(value))
    operators = ast.BinOp | ast.UnaryOp | ast.operator | ast.unaryop | ast.Constant | ast.Name | ast.expr_context
    return all(isinstance(part, operators) for part in parts) and any(
        isinstance(part, ast.Constant) and isinstance(part.value, int | float) for part in parts
    )


def test_no_large_number_is_written_down_in_two_modules() -> None:
    homes: dict[float, set[str]] = defaultdict(set)
    for module in MODULES:
        for name, value in numbers(module):
            if isinstance(value, ast.Constant) and isinstance(value.value, int | float) and value.value >= TELLING:
                homes[value.value].add(f"{module.relative_to(PACKAGE)}: {name}")
    assert len(homes) >= 1
    assert [names for names in homes.values() if len(names) > 1] == []


def test_no_public_constant_has_its_name_in_two_modules() -> None:
    homes: dict[str, set[str]] = defaultdict(set)
    for module in MODULES:
        for name, _ in numbers(module):
            if not name.startswith("_"):
                homes[name].add(str(module.relative_to(PACKAGE)))
    assert "MAX_SECONDS" in homes
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_stop_signals_are_listened_to_in_one_module() -> None:
    listening = [
        module.relative_to(PACKAGE).as_posix() for module in MODULES if "signal.SIGTERM" in module.read_text("utf-8")
    ]
    assert listening == ["runtime/run.py"]
