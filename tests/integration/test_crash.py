"""A process with durable lanes is killed again and again, and what was acknowledged is neither lost nor run again.

The ledger that says so is the processes' own and knows nothing of the storage.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from lane_obs.storage import LocalStorage, StoredCommand
from lane_obs.storage.change import Save

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

ROOT = Path(__file__).parents[2]
SIGKILL = -9
KILLS = 150
RECOVERY_KILLS = 30
MIGRATION_KILLS = 20
BACKLOG = 12_000
PATIENCE = 90.0


class Nursery:
    """The program that forks lives and kills them."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self.folder = folder / "queue"
        self.ledger = folder / "ledger"
        self.lives = 0

    def run(self, kind: str, seconds: float, **order: Any) -> dict[str, Any]:
        """One life; returns how it ended."""
        self.lives += 1
        order |= {"kind": kind, "seconds": seconds, "number": self.lives}
        order |= {"folder": str(self.folder), "ledger": str(self.ledger)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert answer["code"] in {SIGKILL, 0}, self.errors()
        return answer

    def drain(self) -> dict[str, Any]:
        """Lets a last life end all there is; returns what it noted in the end."""
        assert self.run("drain", PATIENCE)["code"] == 0, f"it did not drain: {self.errors()}"
        last: dict[str, Any] = self.lines()[-1]
        assert last["what"] == "drained"
        assert last["failures"] == []
        return last

    def lines(self) -> list[dict[str, Any]]:
        """The ledger. A kill may tear the line that is just being written, which is a life's last."""
        found, torn = [], 0
        for line in filter(None, self.ledger.read_text().split("\n")):
            try:
                found.append(json.loads(line))
            except ValueError:
                torn += 1
        assert torn <= self.lives
        return found

    def errors(self) -> str:
        path = Path(f"{self.ledger}.errors")
        return path.read_text() if path.exists() else "no errors"


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    command = [sys.executable, "-m", "tests.integration.crash_program"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        yield Nursery(process, tmp_path)
        with contextlib.suppress(BrokenPipeError):
            assert process.stdin is not None
            process.stdin.close()
        assert process.wait(10) == 0


@dataclasses.dataclass
class Seen:
    """What the ledger says, by command id."""

    acked: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    starts: dict[str, list[int]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))
    """Places in the ledger."""
    finished: dict[str, int] = dataclasses.field(default_factory=dict)
    results: dict[str, int] = dataclasses.field(default_factory=dict)
    lane: dict[str, str] = dataclasses.field(default_factory=dict)
    attempts: dict[str, list[tuple[int, int]]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )
    """Life and number of each."""
    keys: list[tuple[int, str, str]] = dataclasses.field(default_factory=list)
    """Acknowledged submits with a key: the place in the ledger, the key, the id."""

    @classmethod
    def of(cls, lines: Iterable[dict[str, Any]]) -> Seen:
        seen = cls()
        for place, line in enumerate(lines):
            what, key = line["what"], line.get("id", "")
            if what == "ack":
                seen.acked[key] = line
                if line["key"] is not None:
                    seen.keys.append((place, line["key"], key))
            elif what == "start":
                seen.starts[key].append(place)
                seen.lane[key] = line["lane"]
                seen.attempts[key].append((line["life"], line["attempt"]))
            elif what == "finish":
                seen.finished.setdefault(key, place)
            elif what == "result":
                seen.results[key] = place
        return seen

    def check(self, dead: Collection[str] = ()) -> None:
        """What must hold of every command, whatever happened.

        `dead`: commands of the lane `once` that became dead letters. One whose process died between the commit of its
        start and its first step did not run.
        """
        lost = [(line["lane"], key) for key, line in self.acked.items() if key not in self.starts and key not in dead]
        assert not lost, f"{len(lost)} acknowledged commands never ran: {lost[:5]}"
        again = [key for key, place in self.results.items() if self.starts[key][-1] > place]
        assert not again, f"{len(again)} commands ran again after their result: {again[:5]}"
        unended = [
            key
            for key, lane in self.lane.items()
            if lane not in {"dying", "once", "poison"} and key not in self.finished
        ]
        assert not unended, f"{len(unended)} commands never ended: {unended[:5]}"
        self._check_order()
        self._check_keys()

    def _check_order(self) -> None:
        first = [key for key in self.starts if self.lane[key] == "line"]  # in order of their first starts
        numbers = [int(key.rpartition("-")[2]) for key in first]
        assert numbers == sorted(numbers), "commands of a lane of one changed places"
        assert len(set(numbers)) == len(numbers)
        for key, attempts in self.attempts.items():
            # In a life each counts one more. What was not committed when its process died is counted again.
            for (life, before), (next_life, after) in itertools.pairwise(attempts):
                assert after == before + 1 if life == next_life else after >= 1, (key, attempts)

    def _check_keys(self) -> None:
        latest: dict[str, str] = {}
        for place, key, command_id in self.keys:
            before = latest.get(key, command_id)
            if before != command_id:
                assert self.finished.get(before, place) < place, f"{key}: {command_id} beside {before}"
            latest[key] = command_id


async def stored(folder: Path) -> tuple[list[StoredCommand], list[Any]]:
    """What is left in a folder."""
    storage = LocalStorage(folder)
    await storage.open()
    left = await storage.load_commands(), await storage.load_dead_letters()
    await storage.close()
    return left


@pytest.mark.timeout(240)
async def test_nothing_acknowledged_is_lost_and_nothing_that_ended_runs_again(nursery: Nursery) -> None:
    rng = random.Random(5)
    for number in range(KILLS):
        durability = "full" if number % 3 else "normal"
        nursery.run("traffic", rng.uniform(0.0, 0.13), since="up", durability=durability)
    nursery.drain()
    seen = Seen.of(nursery.lines())
    commands, letters = await stored(nursery.folder)
    assert commands == []
    seen.check({letter.id for letter in letters if letter.lane == "once"})
    assert len(seen.acked) > KILLS * 10, "hardly anything was submitted"
    assert len([key for key in seen.starts if len(seen.attempts[key]) > 1]) > KILLS / 4, "hardly any kill hit anything"

    once = [key for key, lane in seen.lane.items() if lane == "once"]
    twice = [key for key in once if len(seen.starts[key]) > 1]
    assert not twice, f"{len(twice)} of {len(once)} commands that must not run twice did: {twice[:5]}"
    dead = {letter.id: letter.error_type for letter in letters}
    expected = {key: "ConnectionError" for key, lane in seen.lane.items() if lane == "dying"}
    expected |= {key: "ProcessDied" for key in once if key not in seen.finished}
    # Killed before its first step, or after its last and before that was committed: it counts as having run.
    unsure = {letter.id for letter in letters if letter.lane == "once" and letter.id not in expected}
    assert not unsure & seen.results.keys()
    assert dead == expected | dict.fromkeys(unsure, "ProcessDied")


def backlog(lanes: dict[str, int]) -> list[StoredCommand]:
    """Commands that wait, in turn in several lanes."""
    names = [lane for lane, count in lanes.items() for _ in range(count)]
    random.Random(1).shuffle(names)
    return [
        StoredCommand(
            id=f"old-{seq}", seq=seq, lane=lane, command_type="crash.work", submitted_at=time.time(),
            payload=msgspec.json.encode([f"old.{seq}", 0, 0.0]),
        )
        for seq, lane in enumerate(names, 1)
    ]  # fmt: skip


async def fill(folder: Path, commands: list[StoredCommand]) -> None:
    storage = LocalStorage(folder, durability="normal")
    await storage.open()
    for start in range(0, len(commands), 1_000):
        await storage.apply([Save(command) for command in commands[start : start + 1_000]])
    await storage.close()


@pytest.mark.timeout(240)
async def test_a_kill_while_many_are_brought_back_loses_none(nursery: Nursery) -> None:
    await fill(nursery.folder, backlog({"line": BACKLOG // 2, "wide": BACKLOG // 2}))
    rng, ups = random.Random(6), 0
    for _ in range(RECOVERY_KILLS):
        ups += nursery.run("traffic", rng.uniform(0.0, 0.2), since="birth")["up"]
    assert ups > 0
    nursery.drain()
    seen = Seen.of(nursery.lines())
    seen.check()
    assert len([key for key in seen.starts if key.startswith("old-")]) == BACKLOG
    assert [row.id for row in (await stored(nursery.folder))[0]] == []


@pytest.mark.timeout(240)
async def test_a_kill_inside_a_migration_leaves_the_old_schema_or_the_new(nursery: Nursery) -> None:
    commands = backlog({"line": 3_000})
    await fill(nursery.folder, commands)
    rng = random.Random(7)
    for _ in range(MIGRATION_KILLS):
        if nursery.run("migrate", rng.uniform(0.0, 0.05), since="birth")["code"] == 0:
            break
    assert nursery.run("migrate", PATIENCE)["code"] == 0, nursery.errors()
    last = nursery.lines()[-1]
    assert last["what"] == "migrated"
    assert last["ids"] == [command.id for command in commands]


async def test_a_command_that_kills_its_process_at_once_does_so_a_few_times_only(nursery: Nursery) -> None:
    for lives in range(1, 10):  # noqa: B007 - told below
        if nursery.run("poison", PATIENCE)["code"] == 0:
            break
    assert lives <= 4, f"{lives} lives"  # max_crashes is 2; a first start may not have been committed yet
    commands, letters = await stored(nursery.folder)
    assert commands == []
    assert [letter.error_type for letter in letters] == ["ProcessDied"]
