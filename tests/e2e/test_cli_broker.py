"""`lane-obs stats`, `pause`, `resume`, `cancel` and `dlq` as users run them, on a queue at a real Redis."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import LaneConfig, QueueManager, command
from lane_obs.distributed import PartitionedBroker, RedisBroker
from tests.e2e.worker_process import PATIENCE, environment
from tests.integration.servers.engine import require_engine
from tests.integration.servers.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "very-secret"
LANES = {"mail": LaneConfig(0, 4, priority=1, max_pending=100), "sums": LaneConfig(0, 2)}
HOSTILE = "\x1b]0;owned\x07\x1b[31mred"


@command("cli.fail")
async def fail(text: str) -> None:
    raise ValueError(text)


@command("cli.divide")
async def divide(number: int) -> float:
    return 1 / number


@pytest.fixture(scope="module")
def redis() -> Iterator[Server]:
    with Server(require_engine("redis"), config={"requirepass": SECRET}) as server:
        yield server


class Queue:
    """A queue of the test's own, and the command line that asks it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = f"q{uuid.uuid4().hex}"

    def manager(self, *, work: bool = True) -> QueueManager:
        return QueueManager(LANES, max_concurrency=5, broker=RedisBroker(self.url, queue=self.name), work=work)

    async def run(self, *words: str, answer: str = "", code: int = 0) -> str:
        """What it prints on standard output; on standard error where it does not succeed."""
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-m", "lane_obs", *words, "--queue", self.name], input=answer,
            capture_output=True, encoding="utf-8", env=environment(LANE_OBS_URL=self.url), timeout=PATIENCE,
            check=False,
        )  # fmt: skip
        assert SECRET not in done.stdout + done.stderr
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    async def found(self, *words: str) -> Any:
        return json.loads(await self.run(*words, "--json"))

    async def make_letters(self) -> None:
        """Four dead letters, oldest first: mail-0, mail-1, sum, evil."""
        async with self.manager() as manager:
            for id_, lane, work, argument in (
                ("mail-0", "mail", fail, "lost 0"),
                ("mail-1", "mail", fail, "lost 1"),
                ("sum", "sums", divide, 0),
                ("evil", "mail", fail, HOSTILE),
            ):
                handle = await manager.submit(lane, work, argument, id=id_)
                with pytest.raises(Exception, match=r".*"):
                    await handle


@pytest.fixture
def queue(redis: Server) -> Queue:
    return Queue(redis.url)


# --- stats ------------------------------------------------------------------------------------------------------


async def test_stats_show_lanes_and_processes(queue: Queue) -> None:
    await queue.make_letters()
    async with queue.manager(work=False) as manager, queue.manager():
        await manager.cluster.pause("mail")
        await manager.submit("mail", fail, "waits")
        await manager.submit("sums", divide, 1, delay=1_000)
        stats = await queue.found("stats")
        text = await queue.run("stats")
    assert (stats["queue"], stats["max_concurrency"], stats["submitted"], stats["letters"]) == (queue.name, 5, 6, 4)
    assert stats["ended"] == {"failed": 4}
    lanes = stats["lanes"]
    assert (lanes["mail"]["ready"], lanes["mail"]["paused"], lanes["mail"]["max_pending"]) == (1, True, 100)
    assert (lanes["sums"]["delayed"], lanes["sums"]["dead"]) == (1, 1)
    assert [member["works"] for member in sorted(stats["members"], key=lambda member: member["works"])] == [False, True]
    rows = [line.split() for line in text.splitlines()]
    assert [row[0] for row in rows if row and row[0] in LANES] == ["sums", "mail"]  # by priority
    assert next(row for row in rows if row[:1] == ["mail"])[-1] == "paused"
    assert "6 commands submitted, ended: failed 4; 4 dead letters" in text


async def test_a_look_changes_nothing_and_makes_no_queue(queue: Queue, redis: Server) -> None:
    assert "there is no queue" in await queue.run("stats", code=1)
    assert (await queue.run("dlq", "list", code=1)).startswith("lane-obs: there are no such dead letters")
    assert redis.ask("KEYS", f"*{queue.name}*") == []
    async with queue.manager():
        before = await queue.found("stats")
        assert await queue.found("stats") | {"members": []} == before | {"members": []}


async def test_watch_looks_again_until_it_is_told_to_stop(queue: Queue) -> None:
    async with queue.manager() as manager:
        words = [
            sys.executable,
            "-m",
            "lane_obs",
            "stats",
            "--queue",
            queue.name,
            "--watch",
            "--every",
            "0.1",
            "--json",
        ]
        watching = await asyncio.create_subprocess_exec(
            *words, env=environment(LANE_OBS_URL=queue.url), stdout=asyncio.subprocess.PIPE
        )
        assert watching.stdout is not None
        assert json.loads(await watching.stdout.readline())["submitted"] == 0
        await (await manager.submit("sums", divide, 1))
        while json.loads(await watching.stdout.readline())["submitted"] == 0:
            pass
        watching.send_signal(signal.SIGINT)
        await watching.stdout.read()
        assert await watching.wait() == 0


# --- steering ---------------------------------------------------------------------------------------------------


async def test_pause_and_resume(queue: Queue) -> None:
    async with queue.manager() as manager:
        assert await queue.run("pause", "sums") == "paused 'sums'\n"
        assert await queue.run("pause", "sums") == "nothing to do for 'sums': it was paused before\n"
        handle = await manager.submit("sums", divide, 2)
        assert (await manager.cluster.stats()).lanes["sums"].ready == 1
        assert await queue.run("resume", "sums") == "resumed 'sums'\n"
        assert await handle == 0.5
        assert await queue.run("resume", "sums") == "nothing to do for 'sums': it was not paused\n"
        assert "unknown lane 'nolane'; known lanes: 'mail', 'sums'" in await queue.run("pause", "nolane", code=2)


async def test_cancel(queue: Queue) -> None:
    async with queue.manager(work=False) as manager:
        handle = await manager.submit("sums", divide, 1, id="one")
        assert await queue.run("cancel", "one") == "cancelled 'one'\n"
        with pytest.raises(Exception, match="cancelled"):
            await handle
        assert await queue.run("cancel", "one", code=1) == "lane-obs: there is no live command 'one'\n"


# --- dead letters -----------------------------------------------------------------------------------------------


async def test_letters_are_listed_by_filter_and_page(queue: Queue) -> None:
    await queue.make_letters()

    async def ids(*words: str) -> list[str]:
        return [letter["id"] for letter in (await queue.found("dlq", "list", *words))["letters"]]

    assert await ids() == ["mail-0", "mail-1", "sum", "evil"]
    assert await ids("--lane", "sums") == ["sum"]
    assert await ids("--type", "cli.fail", "--since", "1h") == ["mail-0", "mail-1", "evil"]
    page = await queue.found("dlq", "list", "--type", "cli.fail", "--limit", "2")
    assert ([letter["id"] for letter in page["letters"]], page["after"]) == (["mail-0", "mail-1"], "mail-1")
    assert await ids("--type", "cli.fail", "--after", page["after"]) == ["evil"]
    (letter,) = (await queue.found("dlq", "list", "--lane", "sums"))["letters"]
    assert (letter["command_type"], letter["payload"], letter["reason"]) == ("cli.divide", [0], "failed")
    assert (letter["error_type"], letter["attempts"]) == ("ZeroDivisionError", 1)
    text = await queue.run("dlq", "list")
    assert "ValueError: lost 0" in text
    assert "\x1b" not in text


async def test_one_letter_is_shown_whole(queue: Queue) -> None:
    await queue.make_letters()
    text = await queue.run("dlq", "show", "sum")
    assert text.startswith("id: sum\nlane: sums\ncommand_type: cli.divide\nreason: failed\nattempts: 1\nfailed_at: ")
    assert "return 1 / number" in text
    assert "there is no dead letter 'nope'" in await queue.run("dlq", "show", "nope", code=1)


async def test_requeue_makes_commands_of_them_again(queue: Queue) -> None:
    await queue.make_letters()
    async with queue.manager(work=False) as manager:
        assert await queue.run("dlq", "requeue", "sum") == "requeued 1 dead letter\n"
        found = await manager.cluster.find("sum")
        assert found is not None
        assert (found.state, found.command_type) == ("ready", "cli.divide")
        assert "nothing was changed" in await queue.run("dlq", "requeue", "--all", code=1, answer="n\n")
        assert await queue.run("dlq", "requeue", "--all", "--lane", "mail", "--yes") == "requeued 3 dead letters\n"
        assert (await manager.cluster.stats()).letters == 0
        assert (await manager.cluster.stats()).lanes["mail"].ready == 3


async def test_purge_forgets_them(queue: Queue) -> None:
    await queue.make_letters()
    assert await queue.found("dlq", "purge", "mail-0", "sum") == {"purged": 2, "missing": []}
    assert "there is no dead letter 'sum'" in await queue.run("dlq", "purge", "sum", code=1)
    assert await queue.run("dlq", "purge", "--all", "--yes") == "purged 2 dead letters\n"
    assert "there are no such dead letters" in await queue.run("dlq", "purge", "--all", "--yes", code=1)


# --- where ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["stats", "http://:very-secret@127.0.0.1"], "redis://"),
        (["stats", "redis://:very-secret@127.0.0.1:1"], "127.0.0.1:1"),
        (["dlq", "list", "--dir", "/nowhere", "--url", "redis://:very-secret@127.0.0.1"], "not both"),
        (["dlq", "requeue", "x", "--url", "redis://:very-secret@127.0.0.1:1"], "127.0.0.1:1"),
    ],
)
async def test_bad_input_is_named_without_its_secrets(queue: Queue, words: list[str], says: str) -> None:
    assert says in await queue.run(*words, code=2)


async def test_a_wrong_password_is_told(queue: Queue) -> None:
    told = await queue.run("stats", queue.url.replace(SECRET, "wrong-secret"), code=2)
    assert "wrong-secret" not in told
    assert "WRONGPASS" in told


@pytest.mark.parametrize("words", [["stats"], ["pause", "a"], ["cancel", "a"], ["dlq", "list"], ["dlq", "show", "a"]])
def test_it_has_to_be_said_where(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lane_obs", *words], capture_output=True, encoding="utf-8", env=environment(),
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "$LANE_OBS_URL" in done.stderr


# --- partitions -------------------------------------------------------------------------------------------------


async def test_a_queue_in_partitions_is_found_by_its_name_alone(queue: Queue) -> None:
    broker = PartitionedBroker.of_redis(queue.url, partitions=2, queue=queue.name)
    ids = [f"sum-{number}" for number in range(4)]
    async with QueueManager(LANES, broker=broker) as manager:
        for id_ in ids:
            with pytest.raises(Exception, match="division by zero"):
                await (await manager.submit("sums", divide, 0, id=id_))
        await queue.run("pause", "mail")
        await manager.submit("mail", fail, "waits", id="waiting")
        stats = await queue.found("stats")
        assert (stats["queue"], stats["submitted"], stats["letters"]) == (queue.name, 5, 4)
        assert (stats["lanes"]["mail"]["paused"], stats["lanes"]["mail"]["max_concurrency"]) == (True, 4)
        assert [member["works"] for member in stats["members"]] == [True]
        listed = await queue.run("dlq", "list")
        assert [word for word in listed.split() if word.startswith("sum-")] == ids
        await queue.run("dlq", "purge", "sum-2", "--yes")
        await queue.run("cancel", "waiting")
        assert (await queue.found("stats"))["ended"]["cancelled"] == 1
        await queue.run("resume", "mail")
