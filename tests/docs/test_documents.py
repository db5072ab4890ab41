"""README.md and docs/ say what is so. Their code blocks are tests of their own (see code_blocks.py)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sybil import Document
from sybil.example import Example

import lane_obs
from docs import generate
from tests.docs import code_blocks

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*generate.documents(), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]

LANGUAGES = {"python", "bash", "sh", "toml", "text", "mermaid", "csv", "json"}
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def blocks(name: str) -> list[tuple[str, str]]:
    document = Document(read(name), name)
    return [(block.lexemes["language"], block.lexemes["source"]) for block in code_blocks.blocks(document)]


def one_liners(name: str) -> list[str]:
    return [source.strip() for language, source in blocks(name) if language == "bash" and len(source.splitlines()) == 1]


# --- what is generated ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", generate.documents(), ids=lambda path: path.name)
def test_the_generated_parts_are_fresh(path: Path) -> None:
    text = path.read_text("utf-8")
    assert generate.refresh(text) == text, "run: just doc"


def test_a_stale_part_is_noticed_and_rewritten() -> None:
    text = "before\n<!-- generated: wait-causes -->\nstale words\n<!-- /generated -->\nafter\n"
    fresh = generate.refresh(text)
    assert "stale words" not in fresh
    assert fresh.startswith("before\n<!-- generated: wait-causes -->\n| Cause |")
    assert fresh.endswith("\n<!-- /generated -->\nafter\n")
    assert generate.refresh(fresh) == fresh


def test_every_generated_part_is_used_somewhere() -> None:
    used = {name for path in generate.documents() for name in re.findall(r"<!-- generated: ([\w-]+)", path.read_text())}
    assert used == set(generate.PARTS)


def test_the_events_page_has_a_row_for_every_kind_of_event() -> None:
    rows = re.findall(r"^\| `(queue\.[\w.]+)` \|", read("docs/events.md"), re.MULTILINE)
    assert sorted(rows) == sorted(kind.key for kind in lane_obs.events.EVENT_TYPES)


def test_the_states_page_has_a_row_and_an_arrow_for_every_state() -> None:
    text = read("docs/states.md")
    for state in lane_obs.State:
        assert f"| `{state}` |" in text
        assert f"--> {state}\n" in text


# --- code blocks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_code_block_is_of_a_language_that_is_known_here(name: str) -> None:
    assert {language for language, _ in blocks(name)} <= LANGUAGES


def test_a_block_that_fails_or_prints_something_else_is_noticed() -> None:
    evaluate("```python\nprint('a')\n```\n\n```text\na\n```\n")
    with pytest.raises(AssertionError):
        evaluate("```python\nprint('a')\n```\n\n```text\nb\n```\n")
    with pytest.raises(AssertionError, match="exit code 1"):
        evaluate("```python\nimport lane_obs\nlane_obs.nothing\n```\n")
    with pytest.raises(AssertionError, match="exit code 3"):
        evaluate("```bash\nexit 3\n```\n")
    with pytest.raises(lane_obs.ConfigError):
        evaluate("```toml\n[lanes.a]\nmax_concurency = 3\n```\n")


def evaluate(text: str) -> None:
    for region in code_blocks.parse(Document(text, "page.md")):
        code_blocks.evaluate(Example(Document(text, "page.md"), 1, 1, region, {}))


# --- words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_link_inside_the_repository_leads_somewhere(name: str) -> None:
    for link in _LINK.findall(read(name)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), link


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_public_name_occurs_in_the_documents() -> None:
    text = "\n".join(path.read_text("utf-8") for path in generate.documents())
    missing = [name for name in lane_obs.__all__ if not re.search(rf"\b{name}\b", text)]
    assert missing == []


def test_every_document_is_linked_from_the_readme() -> None:
    links = {link.partition("#")[0] for link in _LINK.findall(read("README.md"))}
    assert {name for name in NAMES if name != "README.md"} <= links


# --- the two commands -------------------------------------------------------------------------------------------


def test_ci_runs_the_readmes_test_command_word_for_word() -> None:
    commands = [line for line in one_liners("README.md") if line.endswith("-m pytest")]
    assert len(commands) == 1
    assert commands[0] in read(".ci/run").splitlines()


def test_the_readmes_first_command_runs_the_main_job() -> None:
    command = one_liners("README.md")[0]
    install, _, job = command.partition(" && .venv/bin/lane-obs ")
    assert install == "python3 -m venv .venv && .venv/bin/pip install --quiet ."
    assert job == "demo"
    # The whole minute is told in tests/integration/test_demo_alerts.py; here the first chapter, ten times as fast.
    done = code_blocks.run_bash(f"command lane-obs {job} --for 6 --speed 10 --metrics-port 0")
    assert done.returncode == 0, done.stderr
    for lane in ("system", "control", "query", "session", "skill", "prompt"):
        assert lane in done.stdout
