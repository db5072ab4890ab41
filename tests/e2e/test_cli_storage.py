"""`lane-obs dlq`, `inspect` and `repair` as users run them, on folders that real queues have left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs.cli.folder import iso, to_time
from lane_obs.errors import ConfigError
from lane_obs.storage import LocalStorage, StoredCommand, StoredDeadLetter

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x9b2J\u202egnp\r\nnext"
PRELUDE = """
import asyncio, os, signal, sys
from lane_obs import Command, LaneConfig, QueueManager, RetryPolicy, command
from lane_obs.storage import LocalStorage

FOLDER = sys.argv[1]
LANES = {"mail": LaneConfig(0, 1), "sums": LaneConfig(0, 1)}

@command("work.fail")
async def fail(text: str, number: int = 0) -> None:
    raise ValueError(text)

@command("work.divide")
async def divide(number: int) -> float:
    return 1 / number

@command("work.hang")
async def hang() -> None:
    await asyncio.Event().wait()

def queue():
    return QueueManager(LANES, storage=LocalStorage(FOLDER))
"""


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "FORCE_COLOR"}}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **more}


def cli(*arguments: object, answer: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lane_obs", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        input=answer,
        env=environment(**more),
        timeout=60,
        check=False,
    )


def found(*arguments: object) -> Any:
    """What a command prints as JSON."""
    done = cli(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


def program(folder: Path, body: str, *, name: str = "program.py") -> list[str]:
    path = folder.parent / name
    path.write_text(PRELUDE + body, "utf-8")
    return [sys.executable, str(path), str(folder)]


def play(folder: Path, body: str, *, prelude: str = "", code: int = 0) -> str:
    """Runs the body of a coroutine, which has a started queue, in a process of its own; returns what it prints."""
    lines = "".join(f"        {line}\n" for line in body.strip().splitlines())
    text = f"{prelude}\nasync def main():\n    async with queue() as manager:\n{lines}\nasyncio.run(main())\n"
    done = subprocess.run(
        program(folder, text), capture_output=True, encoding="utf-8", env=environment(), timeout=60, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout


LETTERS = f"""
for number in range(3):
    await manager.submit("mail", fail, f"lost {{number}}", number, id=f"mail-{{number}}")
await manager.submit("sums", divide, 0, id="sum", key="once", timeout=5, deadline=100)
await manager.submit("mail", fail, {HOSTILE!r}, id="evil")
await manager.drain()
"""


@pytest.fixture(scope="module")
def letters_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "queue"
    play(folder, LETTERS)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a queue may be."""
    return tmp_path / "queue"


@pytest.fixture
def letters(letters_made: Path, folder: Path) -> Path:
    """The folder of a queue that has ended and left five dead letters."""
    folder.mkdir(mode=0o700)
    for file in letters_made.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@contextlib.contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that owns the folder until its standard input ends."""
    body = """
async def main():
    async with queue() as manager:
        await manager.submit("mail", hang)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        os._exit(0)
asyncio.run(main())
"""
    process = subprocess.Popen(
        program(folder, body, name="owner.py"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env=environment(),
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def ids(folder: Path, *arguments: object) -> list[str]:
    return [letter["id"] for letter in found("dlq", "list", "--dir", folder, *arguments)["letters"]]


ALL = ["mail-0", "mail-1", "mail-2", "sum", "evil"]


# --- list and show ----------------------------------------------------------------------------------------------


def test_list_shows_a_row_a_letter_oldest_first(letters: Path) -> None:
    done = cli("dlq", "list", "--dir", letters)
    assert (done.returncode, done.stderr) == (0, "")
    table = [re.split(r" {2,}", line.strip()) for line in done.stdout.splitlines() if line[2:].strip(" ─")]
    assert table[0] == ["id", "lane", "type", "reason", "attempts", "failed at", "error"]
    first = dict(zip(table[0], table[1], strict=True))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first.pop("failed at"))
    assert first == {
        "id": "mail-0", "lane": "mail", "type": "work.fail", "reason": "failed", "attempts": "1",
        "error": "ValueError: lost 0",
    }  # fmt: skip
    assert sorted(row[0] for row in table[1:] if row[0] in ALL) == sorted(ALL)


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        (["--lane", "sums"], ["sum"]),
        (["--type", "work.fail"], ["mail-0", "mail-1", "mail-2", "evil"]),
        (["--lane", "mail", "--since", "1h"], ["mail-0", "mail-1", "mail-2", "evil"]),
        (["--since", "2020-01-01", "--until", "2100-01-01T00:00:00+01:00"], ALL),
    ],
)
def test_list_takes_filters(letters: Path, filters: list[str], left: list[str]) -> None:
    assert sorted(ids(letters, *filters)) == sorted(left)


@pytest.mark.parametrize("filters", [["--lane", "none"], ["--until", "1h"], ["--since", "2100-01-01"]])
def test_where_nothing_is_left_the_exit_code_says_so(letters: Path, filters: list[str]) -> None:
    done = cli("dlq", "list", "--dir", letters, *filters)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "lane-obs: there are no such dead letters\n")
    done = cli("dlq", "list", "--dir", letters, *filters, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (1, {"letters": [], "after": None})


def test_a_time_that_list_prints_finds_its_letter_again(letters: Path) -> None:
    listed = found("dlq", "list", "--dir", letters)["letters"]
    for letter in (listed[0], listed[-1]):
        assert letter["id"] in ids(letters, "--since", letter["failed_at"])
        before = cli("dlq", "list", "--dir", letters, "--until", letter["failed_at"], "--json")
        assert letter["id"] not in [other["id"] for other in json.loads(before.stdout)["letters"]]


def test_pages_join_to_the_whole(letters: Path) -> None:
    whole, pages, after = ids(letters), [], []
    while True:
        page = found("dlq", "list", "--dir", letters, "--limit", 2, *after)
        pages.append([letter["id"] for letter in page["letters"]])
        if page["after"] is None:
            break
        after = ["--after", page["after"]]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [id_ for page in pages for id_ in page] == whole
    text = cli("dlq", "list", "--dir", letters, "--limit", 2).stdout
    assert re.search(r"^more: --after \d+$", text, re.MULTILINE)


def test_show_prints_all_of_a_letter(letters: Path) -> None:
    done = cli("dlq", "show", "sum", "--dir", letters)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for line in ("id: sum", "lane: sums", "command_type: work.divide", "reason: failed", "attempts: 1", "key: once"):
        assert line in lines
    assert "ZeroDivisionError: division by zero" in done.stdout
    assert "Traceback (most recent call last):" in done.stdout
    assert "return 1 / number" in done.stdout
    letter = found("dlq", "show", "sum", "--dir", letters)
    assert letter["payload"] == [0]
    assert letter["options"] == {"timeout": 5.0, "deadline": 100.0}
    assert letter["traceback"].rstrip().endswith("ZeroDivisionError: division by zero")


def test_show_of_an_unknown_id(letters: Path) -> None:
    done = cli("dlq", "show", "no\x1b[2Jbody", "--dir", letters)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "lane-obs: there is no dead letter 'no\\x1b[2Jbody'\n"


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["show", "evil"], ["show", "evil", "--json"]])
@pytest.mark.parametrize("more", [{"PYTHONIOENCODING": "ascii"}, {"FORCE_COLOR": "1"}])
def test_nothing_in_a_letter_is_a_command_to_the_terminal(
    letters: Path, arguments: list[str], more: dict[str, str]
) -> None:
    done = cli("dlq", *arguments, "--dir", letters, **more)
    assert (done.returncode, done.stderr) == (0, "")
    ours = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout) if more.get("FORCE_COLOR") else done.stdout
    assert all(char.isprintable() or char == "\n" for char in ours)
    assert "owned" in done.stdout
    if "--json" in arguments:
        whole = json.loads(done.stdout)
        letter = whole["letters"][ALL.index("evil")] if "letters" in whole else whole
        assert (letter["error"], letter["payload"]) == (HOSTILE, [HOSTILE])


# --- requeue ----------------------------------------------------------------------------------------------------

RERUN = """
await manager.drain()
print([(letter.id, letter.error, letter.attempts) for letter in manager.dead_letters.list()])
"""


def test_a_requeued_letter_runs_at_the_next_start_with_its_attempts_at_zero(letters: Path) -> None:
    done = cli("dlq", "requeue", "sum", "--dir", letters)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "requeued 1 dead letter\n"
    assert "sum" not in ids(letters)
    (waiting,) = found("inspect", letters)["waiting"]
    assert (waiting["lane"], waiting["command_type"], waiting["state"], waiting["count"]) == (
        "sums", "work.divide", "ready", 1,
    )  # fmt: skip
    out = play(letters, RERUN)
    assert "('sum', 'division by zero', 1)" in out
    assert ids(letters)[-1] == "sum"
    letter = found("dlq", "show", "sum", "--dir", letters)
    assert (letter["key"], letter["options"]) == ("once", {"timeout": 5.0, "deadline": 100.0})


def test_requeue_of_several_tells_which_are_not_there(letters: Path) -> None:
    done = cli("dlq", "requeue", "mail-0", "gone", "mail-2", "mail-0", "--dir", letters)
    assert done.returncode == 1
    assert done.stdout == "requeued 2 dead letters\n"
    assert done.stderr == "lane-obs: there is no dead letter 'gone'\n"
    assert sorted(ids(letters)) == ["evil", "mail-1", "sum"]


def test_requeue_of_all_that_a_filter_leaves_asks_first(letters: Path) -> None:
    wanted = ["dlq", "requeue", "--all", "--lane", "mail", "--dir", letters]
    for answer in ("n\n", ""):
        done = cli(*wanted, answer=answer)
        assert (done.returncode, done.stdout) == (1, "")
        assert "Requeue 4 dead letters of " in done.stderr
        assert "nothing was changed" in done.stderr
        assert sorted(ids(letters)) == sorted(ALL)
    done = cli(*wanted, answer="y\n")
    assert (done.returncode, done.stdout) == (0, "requeued 4 dead letters\n")
    assert ids(letters) == ["sum"]
    assert play(letters, RERUN).count("lost") == 3
    assert sorted(ids(letters)) == sorted(ALL)


def test_a_command_that_is_stored_is_not_replaced(letters: Path) -> None:
    stored = """
manager.pause("mail")
manager.pause("sums")
await manager.submit("mail", divide, 1, id="mail-1")
await manager.submit("sums", divide, 2, id="other", key="once")
os._exit(0)
"""
    play(letters, stored)
    done = cli("dlq", "requeue", "--all", "--yes", "--dir", letters)
    assert (done.returncode, done.stdout) == (1, "requeued 3 dead letters\n")
    assert done.stderr.splitlines() == [
        "lane-obs: 'mail-1' stays: a stored command has its id",
        "lane-obs: 'sum' stays: a stored command has its key 'once'",
    ]
    assert ids(letters) == ["mail-1", "sum"]
    groups = found("inspect", letters)["waiting"]
    assert sum(group["count"] for group in groups) == 5


def test_requeue_prints_json(letters: Path) -> None:
    assert found("dlq", "requeue", "sum", "--dir", letters) == {"requeued": 1, "missing": [], "refused": []}
    done = cli("dlq", "requeue", "mail-1", "sum", "--json", "--dir", letters)
    assert (done.returncode, done.stderr) == (1, "lane-obs: there is no dead letter 'sum'\n")
    assert json.loads(done.stdout) == {"requeued": 1, "missing": ["sum"], "refused": []}
    play(letters, "manager.pause('mail')\nawait manager.submit('mail', divide, 1, id='mail-2')\nos._exit(0)")
    done = cli("dlq", "requeue", "mail-2", "--json", "--dir", letters)
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "requeued": 0, "missing": [], "refused": [{"id": "mail-2", "reason": "a stored command has its id"}],
    }  # fmt: skip
    done = cli("dlq", "requeue", "--all", "--json", "--dir", letters, answer="n\n")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"requeued": 0, "missing": [], "refused": []}


async def test_a_place_that_is_taken_is_not_taken_twice(folder: Path) -> None:
    storage = LocalStorage(folder)
    await storage.open()
    common = {"lane": "mail", "command_type": "work.divide", "payload": b"[0]"}
    for id_, seq, options in (("first", 1, {}), ("second", 2, {"deadline": 50.0}), ("third", 2, {})):
        letter = StoredDeadLetter(
            id=id_, seq=seq, options=options, reason="failed", error_type="X", error="x", attempts=3, **common
        )
        await storage.save_dead_letter(letter)
    await storage.save_command(StoredCommand(id="stored", seq=1, **common))
    await storage.close()
    done = await asyncio.to_thread(cli, "dlq", "requeue", "second", "third", "first", "--dir", folder)
    assert (done.returncode, done.stdout) == (0, "requeued 3 dead letters\n"), done.stderr
    await storage.open()
    commands = await storage.load_commands()
    await storage.close()
    assert [(command.id, command.seq) for command in commands] == [
        ("stored", 1), ("second", 2), ("third", 3), ("first", 4),
    ]  # fmt: skip
    second = commands[1]
    assert (second.attempt, second.state, second.not_before, second.options) == (0, "ready", None, {"deadline": 50.0})
    assert second.deadline == second.submitted_at + 50.0 > 50.0


def test_more_letters_than_one_change_holds(folder: Path) -> None:
    own_queue = """
from lane_obs import DeadLetterQueue

def queue():
    letters = DeadLetterQueue(5_000)
    return QueueManager({"mail": LaneConfig(0, 100)}, storage=LocalStorage(FOLDER), dead_letters=letters)
"""
    submit = 'await manager.submit_many("mail", [(fail, "x", number) for number in range(1_205)])\n'
    play(folder, f"{submit}await manager.drain()", prelude=own_queue)
    done = cli("dlq", "requeue", "--all", "--yes", "--dir", folder)
    assert (done.returncode, done.stdout) == (0, "requeued 1,205 dead letters\n")
    whole = found("inspect", folder)
    assert (whole["commands"], whole["letters"]) == (1_205, 0)
    play(folder, "await manager.drain()", prelude=own_queue)
    assert found("inspect", folder)["letters"] == 1_205
    done = cli("dlq", "purge", "--all", "--yes", "--dir", folder)
    assert (done.returncode, done.stdout) == (0, "purged 1,205 dead letters\n")
    assert found("inspect", folder)["letters"] == 0


# --- purge ------------------------------------------------------------------------------------------------------


def test_purge_forgets_letters(letters: Path) -> None:
    done = cli("dlq", "purge", "evil", "--dir", letters)
    assert (done.returncode, done.stdout, done.stderr) == (0, "purged 1 dead letter\n", "")
    done = cli("dlq", "purge", "--all", "--type", "work.fail", "--dir", letters, "--yes")
    assert (done.returncode, done.stdout, done.stderr) == (0, "purged 3 dead letters\n", "")
    assert ids(letters) == ["sum"]
    done = cli("dlq", "purge", "evil", "--dir", letters)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "lane-obs: there is no dead letter 'evil'\n"
    assert play(letters, RERUN) == "[('sum', 'division by zero', 1)]\n"


def test_purge_prints_json(letters: Path) -> None:
    assert found("dlq", "purge", "evil", "--dir", letters) == {"purged": 1, "missing": []}
    done = cli("dlq", "purge", "evil", "sum", "--json", "--dir", letters)
    assert (done.returncode, json.loads(done.stdout)) == (1, {"purged": 1, "missing": ["evil"]})
    done = cli("dlq", "purge", "--all", "--lane", "none", "--yes", "--json", "--dir", letters)
    assert (done.returncode, json.loads(done.stdout)) == (1, {"purged": 0, "missing": []})
    assert found("dlq", "purge", "--all", "--yes", "--dir", letters) == {"purged": 3, "missing": []}


def test_purge_of_all_asks_first(letters: Path) -> None:
    done = cli("dlq", "purge", "--all", "--dir", letters, answer="n\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"Forget 5 dead letters of {letters}?" in done.stderr
    assert len(ids(letters)) == 5
    done = cli("dlq", "purge", "--all", "--lane", "none", "--dir", letters)
    assert (done.returncode, done.stderr) == (1, "lane-obs: there are no such dead letters\n")


def test_an_interrupt_is_a_no(letters: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "lane_obs", "dlq", "purge", "--all", "--dir", str(letters)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        asked = b""
        while not asked.endswith(b"[y/N] "):
            asked += process.stderr.read(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 1
        assert b"nothing was changed" in process.stderr.read()
    assert len(ids(letters)) == 5


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["requeue"], "give ids of dead letters, or --all"),
        (["purge"], "give ids of dead letters, or --all"),
        (["purge", "--lane", "mail"], "give ids of dead letters, or --all"),
        (["purge", "sum", "--all"], "give ids of dead letters, or --all"),
        (["requeue", "sum", "--lane", "mail"], "filters go with --all"),
        (["list", "--since", "yesterday"], "--since"),
        (["list", "--until", "5 minutes"], "--until"),
        (["purge", "--all", "--since", "2h30"], "--since"),
        (["list", "--since", "9999999999999w"], "--since"),
        (["list", "--limit", "0"], "--limit"),
        (["list", "--after", "-1"], "--after"),
    ],
)
def test_bad_options_are_named_and_nothing_is_changed(letters: Path, arguments: list[str], text: str) -> None:
    done = cli("dlq", *arguments, "--dir", letters)
    assert (done.returncode, done.stdout) == (2, "")
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert len(ids(letters)) == 5


FEW = [["dlq", "list", "--dir"], ["dlq", "purge", "--all", "--yes", "--dir"], ["inspect"], ["repair", "--yes"]]
COMMANDS = [
    ["dlq", "list", "--dir"],
    ["dlq", "show", "sum", "--dir"],
    ["dlq", "requeue", "--all", "--yes", "--dir"],
    ["dlq", "requeue", "sum", "--dir"],
    ["dlq", "purge", "--all", "--yes", "--dir"],
    ["inspect"],
    ["repair", "--yes"],
]


def refused(arguments: list[str], folder: Path, text: str) -> None:
    done = cli(*arguments, folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert text in done.stderr
    assert done.stderr.startswith("lane-obs: ")
    assert len(done.stderr.splitlines()) == 1


def content(folder: Path) -> dict[str, bytes]:
    """What is in a folder; the lock tells of nothing but its last owner."""
    return {path.name: b"" if path.name == "queue.lock" else path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_running_owner_is_named(letters: Path, arguments: list[str]) -> None:
    with running(letters) as owner:
        refused(arguments, letters, f"process {owner.pid} ")
        assert owner.poll() is None
        assert owner.stdin is not None
        owner.stdin.close()
    assert len(ids(letters)) == 5


@pytest.mark.parametrize("arguments", FEW, ids=" ".join)
def test_where_there_is_no_queue_none_is_made(tmp_path: Path, arguments: list[str]) -> None:
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.mkdir()
    refused(arguments, missing, "there is no such f")
    assert not missing.exists()
    refused(arguments, empty, "there is no such file")
    assert content(empty) == {}
    file = tmp_path / "file"
    file.write_text("text")
    refused(arguments, file, str(file))


@pytest.mark.parametrize("arguments", FEW, ids=" ".join)
def test_a_file_of_another_program_is_left_alone(folder: Path, arguments: list[str]) -> None:
    folder.mkdir()
    (folder / "queue.db").write_bytes(b"another program's\n" * 100)
    before = content(folder)
    refused(arguments, folder, "it is no SQLite database")
    assert content(folder) == before


@pytest.mark.parametrize("arguments", FEW, ids=" ".join)
def test_a_file_of_a_later_version_is_left_alone(letters: Path, arguments: list[str]) -> None:
    connection = sqlite3.connect(letters / "queue.db", isolation_level=None)
    connection.execute("PRAGMA user_version = 1000")
    connection.close()
    before = (letters / "queue.db").read_bytes()
    refused(arguments, letters, "schema version 1000")
    assert (letters / "queue.db").read_bytes() == before


@pytest.mark.parametrize("arguments", FEW[:-1], ids=" ".join)
def test_a_damaged_file_is_told_with_what_helps(letters: Path, arguments: list[str]) -> None:
    damage(letters)
    before = content(letters)
    refused(arguments, letters, "`lane-obs repair` saves what it can")
    assert content(letters) == before


def damage(folder: Path) -> None:
    """Cuts the file's end off."""
    path = folder / "queue.db"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 4_096)


def wipe(folder: Path) -> None:
    """Overwrites a page that has dead letters; they alone have tracebacks."""
    path = folder / "queue.db"
    pages = path.read_bytes()
    starts = range(0, len(pages), 4_096)
    wanted = (b"lost 1", b"Traceback")
    at = next(start for start in starts if all(text in pages[start : start + 4_096] for text in wanted))
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 4_096)


# --- inspect ----------------------------------------------------------------------------------------------------

KILLED = """
await manager.submit("mail", hang)
for number in (1, 2):
    await manager.submit("mail", divide, number, deadline=600)
await manager.submit("sums", divide, 3, delay=7200)
again = await manager.submit("sums", fail, "again", retry=RetryPolicy.fixed(3, 900.0, jitter="none"))
while again.state != "backoff":
    await asyncio.sleep(0.01)
manager.pause("sums")
await manager.submit("sums", divide, 4)  # what was told before it is committed with it
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(folder: Path) -> None:
    play(folder, KILLED, code=-signal.SIGKILL)


def test_inspect_tells_what_a_killed_process_left(folder: Path) -> None:
    killed(folder)
    before = content(folder)
    whole = found("inspect", folder)
    assert {key: whole[key] for key in ("path", "schema", "known_schema", "commands", "letters", "ok", "damage")} == {
        "path": str(folder), "schema": 1, "known_schema": 1, "commands": 6, "letters": 0, "ok": True, "damage": None,
    }  # fmt: skip
    assert (whole["running"], whole["died"], whole["overdue"]) == (1, 0, 0)
    assert whole["file_bytes"] == sum(len(before[name]) for name in ("queue.db", "queue.db-wal"))
    groups = {(group["lane"], group["command_type"], group["state"]): group["count"] for group in whole["waiting"]}
    assert groups == {
        ("mail", "work.divide", "ready"): 2, ("mail", "work.hang", "running"): 1,
        ("sums", "work.divide", "delayed"): 1, ("sums", "work.divide", "ready"): 1, ("sums", "work.fail", "backoff"): 1,
    }  # fmt: skip
    assert content(folder) == before

    done = cli("inspect", folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"{folder}: 6 commands, 0 dead letters"
    assert lines[2:4] == ["health: all can be read", "running when the process died: 1"]
    assert re.search(r"mail +work\.hang +running at crash +1 +[\dms]+ ago +now", done.stdout)
    assert re.search(r"sums +work\.divide +delayed +1 +[\dms]+ ago +in 1h59m", done.stdout)
    assert re.search(r"sums +work\.fail +backoff +1 +[\dms]+ ago +in 14m[\ds]*", done.stdout)


async def test_inspect_counts_what_will_not_run_as_it_was_meant(folder: Path) -> None:
    storage = LocalStorage(folder)
    await storage.open()
    common = {"lane": "mail", "command_type": "x", "payload": b"[]"}
    await storage.save_command(StoredCommand(id="late", seq=1, deadline=1.0, **common))
    await storage.save_command(StoredCommand(id="poison", seq=2, deaths=2, **common))
    await storage.close()
    whole = await asyncio.to_thread(found, "inspect", folder)
    assert (whole["running"], whole["died"], whole["overdue"]) == (0, 1, 1)
    done = await asyncio.to_thread(cli, "inspect", folder)
    assert done.stdout.splitlines()[3:5] == ["during which a process had died before: 1", "past their deadline: 1"]


def test_inspect_counts_dead_letters(letters: Path) -> None:
    whole = found("inspect", letters)
    assert (whole["commands"], whole["waiting"], whole["letters"]) == (0, [], 5)
    groups = {(group["lane"], group["command_type"]): group["count"] for group in whole["dead_letters"]}
    assert groups == {("mail", "work.fail"): 4, ("sums", "work.divide"): 1}
    times = {letter["id"]: letter["failed_at"] for letter in found("dlq", "list", "--dir", letters)["letters"]}
    assert min(times.values()) == min(group["oldest"] for group in whole["dead_letters"])
    assert re.search(r"mail +work\.fail +4 +[\dms]+ ago +[\dms]+ ago", cli("inspect", letters).stdout)


def test_inspect_reads_every_row(letters: Path) -> None:
    spoil(letters)
    done = cli("inspect", letters)
    assert done.returncode == 2
    assert f"{letters}: 0 commands, 5 dead letters" in done.stdout
    assert "dead letter 'mail-1' is not as it was written" in done.stdout
    assert done.stderr.count("\n") == 1
    done = cli("inspect", letters, "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["ok"] is False


def spoil(folder: Path) -> None:
    """Changes one row in a way that only its checksum tells."""
    with contextlib.closing(sqlite3.connect(folder / "queue.db", isolation_level=None)) as connection:
        connection.execute("UPDATE letters SET error = 'lost X' WHERE id = 'mail-1'")


# --- repair -----------------------------------------------------------------------------------------------------


def test_repair_leaves_what_is_whole_alone(letters: Path) -> None:
    before = content(letters)
    done = cli("repair", letters, "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{letters}: nothing is wrong with it, and nothing was changed\n"
    assert content(letters) == before


def test_repair_asks_first(letters: Path) -> None:
    damage(letters)
    before = content(letters)
    for answer in ("n\n", ""):
        done = cli("repair", letters, answer=answer)
        assert (done.returncode, done.stdout) == (1, "")
        assert "nothing was changed" in done.stderr
        assert content(letters) == before


def test_repair_saves_all_where_only_an_index_is_damaged(letters: Path) -> None:
    damage(letters)
    done = cli("repair", letters, "--yes")
    assert done.returncode == 0, done.stdout
    assert "saved: 5 dead letters, of 5" in done.stdout.splitlines()
    assert done.stdout.splitlines()[-1] == "nothing is lost"
    assert sorted(ids(letters)) == sorted(ALL)


@pytest.mark.parametrize("as_json", [False, True])
def test_repair_sets_the_damaged_file_aside_and_tells_what_is_lost(letters: Path, as_json: bool) -> None:
    wipe(letters)
    damaged = (letters / "queue.db").read_bytes()
    done = cli("repair", letters, *["--json"] * as_json, answer="y\n")
    assert done.returncode == 1
    (aside,) = (path for path in letters.glob("queue.db.corrupt-*") if not path.name.endswith("-wal"))
    assert aside.read_bytes() == damaged
    if as_json:
        report = json.loads(done.stdout)
        assert (report["complete"], report["set_aside"][0]) == (False, str(aside))
        saved = report["letters"]
    else:
        assert f"set aside: {aside}" in done.stdout
        assert done.stdout.startswith("damage: ")
        assert "lost: " in done.stdout
        saved = int(re.search(r"saved: (\d+) dead letters?, of ", done.stdout)[1])  # type: ignore[index]
    whole = found("inspect", letters)
    assert whole["letters"] == saved < 5
    play(letters, RERUN)


def test_repair_drops_rows_that_are_not_as_they_were_written(letters: Path) -> None:
    spoil(letters)
    done = cli("repair", letters, "--yes")
    assert done.returncode == 1
    assert "lost: dead letter 'mail-1'" in done.stdout
    assert sorted(ids(letters)) == ["evil", "mail-0", "mail-2", "sum"]


# --- times ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h", 1_000_000 - 7_200),
        ("1d12h", 1_000_000 - 129_600),
        ("0.5m", 1_000_000 - 30),
        ("0s", 1_000_000),
        ("1970-01-01", 0),
        ("1970-01-01T00:00:01.5", 1.5),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:10Z", 10),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert to_time("--since", text, 1_000_000) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "2h ", "2H", "-2h", "1e3s", "next week", "99999999999d"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ConfigError, match="--since"):
        to_time("--since", text, 1_000_000)


@pytest.mark.parametrize("seconds", [0.0, 1_764_360_796.123_456_7, 1_764_360_796.999_999_9, -1.5])
def test_a_printed_time_is_never_later(seconds: float) -> None:
    back = to_time("--since", iso(seconds, exact=True), 0)
    assert back is not None
    assert seconds - 2e-6 < back <= seconds


@pytest.mark.parametrize("seconds", [1e300, float("inf"), float("nan")])
def test_a_time_that_is_none_is_shown_as_it_is(seconds: float) -> None:
    assert iso(seconds) == str(seconds)
