"""`lane-obs replay` as users run it: a process of its own."""

from __future__ import annotations

import codecs
import gzip
import json
import os
import pty
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "trace.csv"
LANES = ROOT / "examples" / "lanes.toml"
ENVIRONMENT = {
    key: value
    for key, value in os.environ.items()
    if key not in {"FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
} | {"PYTHONWARNINGS": "error", "TERM": "xterm-256color"}
HEADER = "timestamp,lane,duration,outcome,deadline\n"
LIMIT = 60  # seconds after which a process that should have ended is given up
# As on a machine without uvloop.
ON_ASYNCIO = "import sys; sys.modules['uvloop'] = None; from lane_obs.cli import main; main()"


def run(
    *arguments: object, command: tuple[str, ...] = ("-m", "lane_obs"), environment: dict[str, str] = ENVIRONMENT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command, *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        env=environment,
        timeout=LIMIT,
        check=False,
    )


def replay(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run("replay", *arguments)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(rows: str, name: str = "trace.csv", header: str = HEADER) -> Path:
        path = tmp_path / name
        path.write_text(header + rows, encoding="utf-8")
        return path

    return write


def records_in(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Exit code 2, one line on standard error with these parts, and nothing run."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("lane-obs: ")
    assert done.stderr.count("\n") == 1
    for part in parts:
        assert part in done.stderr


# --- the way it should go


def test_exit_code_0_when_all_succeed(write: Callable[..., Path]) -> None:
    done = replay(write("0,query,1,,\n1,prompt,2,,\n"), "--virtual")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 commands, 3.000 s of the trace's time" in done.stdout
    for part in ("Commands", "Load", "Wait, seconds", "End to end, seconds", "Wait by cause", "query", "prompt", "all"):
        assert part in done.stdout


@pytest.mark.parametrize(
    ("row", "outcome"),
    [
        ("0,small,1,fail,", "failed"),
        ("0,small,1,hang,", "timed_out"),
        ("0,small,9,,2", "expired"),
        ("0,small,1,,\n0,small,1,,\n0,small,1,,", "rejected"),
    ],
)
def test_exit_code_1_when_some_fail_for_good(
    write: Callable[..., Path], tmp_path: Path, row: str, outcome: str
) -> None:
    lanes = write(
        '[lanes.small]\nmax_concurrency = 1\ntimeout = 5\nmax_pending = 1\noverflow = "reject"\n', "l.toml", ""
    )
    done = replay(write(f"{row}\n"), "--virtual", "--lanes", lanes, "--records", tmp_path / "r.jsonl")
    assert (done.returncode, done.stderr) == (1, "")
    assert records_in(tmp_path / "r.jsonl")[-1]["outcome"] == outcome


def test_the_example_runs_through_its_lanes(tmp_path: Path) -> None:
    files = ("--json", tmp_path / "s.json", "--records", tmp_path / "r.jsonl")
    done = replay(EXAMPLE, "--lanes", LANES, "--virtual", *files)
    assert (done.returncode, done.stderr) == (0, "")
    summary, records = json.loads((tmp_path / "s.json").read_text()), records_in(tmp_path / "r.jsonl")
    assert summary["trace"] == str(EXAMPLE)
    assert summary["total"]["count"] == len(records) == 200
    assert {record["outcome"] for record in records} == {"succeeded"}
    assert any(int(str(record["attempts"])) > 1 for record in records)
    assert sum(lane["count"] for lane in summary["lanes"].values()) == 200
    assert [int(str(record["id"])) for record in records] == list(range(2, 202))


def test_a_record_has_its_fields_in_this_order(write: Callable[..., Path], tmp_path: Path) -> None:
    replay(write("10,query,1.5,,\n"), "--virtual", "--records", tmp_path / "r.jsonl")
    assert (tmp_path / "r.jsonl").read_text() == (
        '{"id":"2","lane":"query","command_type":"replay","submitted_at":0.0,"started_at":0.0,"finished_at":1.5,'
        '"outcome":"succeeded","attempts":1,"wait_seconds":0.0,"wait_by_cause":{"slots":0.0,"priority":0.0,'
        '"pause":0.0,"scheduler":0.0,"rate_limit":0.0,"partition":0.0,"backoff":0.0,"delay":0.0,"broker":0.0}}\n'
    )


LIMITED = """
[lanes.api]
priority = 1
max_concurrency = 4
rate_limit = { per_second = 1, burst = 3 }

[lanes.late]
priority = 5
max_concurrency = 1
boost = { standard = 40 }

[lanes.tenant]
priority = 2
max_concurrency = 4
partitions = { per_key = true, fair = true }
"""


def test_rate_limits_boosts_and_partitions_of_a_file_decide(write: Callable[..., Path], tmp_path: Path) -> None:
    header = "timestamp,lane,duration,deadline,cost,partition_key\n"
    rows = (
        "0,api,0,,2,\n0,api,0,,3,\n0,api,0,,0,\n"  # tokens for the second are there after 2 s
        "0,late,4,,,\n0,late,1,,,\n0,late,1,6,,\n"  # the third overtakes: half of its time is over, of theirs a tenth
        "0,tenant,2,,,a\n0,tenant,2,,,a\n0,tenant,2,,,b\n"
    )
    lanes = write(LIMITED, "l.toml", "")
    done = replay(write(rows, header=header), "--virtual", "--lanes", lanes, "--records", tmp_path / "r.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    records = records_in(tmp_path / "r.jsonl")
    assert [record["started_at"] for record in records] == [0.0, 2.0, 2.0, 0.0, 5.0, 4.0, 0.0, 2.0, 0.0]
    waited = [
        {cause: seconds for cause, seconds in record["wait_by_cause"].items() if seconds}  # type: ignore[attr-defined]
        for record in records
    ]
    assert waited == [
        {}, {"rate_limit": 2.0}, {"rate_limit": 2.0}, {}, {"slots": 5.0}, {"slots": 4.0}, {}, {"partition": 2.0}, {},
    ]  # fmt: skip


def test_a_cost_that_a_rate_limit_never_has_is_refused(write: Callable[..., Path]) -> None:
    lanes = write(LIMITED, "l.toml", "")
    trace = write("0,api,1,1\n0,api,1,3.5\n", header="timestamp,lane,duration,cost\n")
    assert_refused(
        replay(trace, "--virtual", "--lanes", lanes),
        "line 3", "'cost'", "3.5", "lane 'api' never lets more than 3 through at once",
    )  # fmt: skip


def test_the_default_lanes_are_used_without_a_file(write: Callable[..., Path], tmp_path: Path) -> None:
    done = replay(write("0,,1,,\n0,,1,,\n0,,1,,\n"), "--virtual", "--json", tmp_path / "s.json")
    assert done.returncode == 0
    lanes = json.loads((tmp_path / "s.json").read_text())["lanes"]
    assert list(lanes) == ["system", "control", "query", "session", "skill", "prompt"]
    assert lanes["prompt"]["wait_seconds"]["max"] == 1.0  # two at a time


def test_json_lines_and_token_counts(write: Callable[..., Path], tmp_path: Path) -> None:
    trace = write('{"timestamp": 5, "ContextTokens": 100, "GeneratedTokens": 10}\n', "trace.jsonl", "")
    costs = ("--prefill-seconds", "0.5", "--decode-seconds", "2")
    assert replay(trace, "--virtual", *costs, "--records", tmp_path / "r.jsonl").returncode == 0
    assert records_in(tmp_path / "r.jsonl")[0]["finished_at"] == 70.0


def test_the_same_command_line_writes_the_same_bytes_on_every_loop(tmp_path: Path) -> None:
    written = []
    for number, command in enumerate((("-m", "lane_obs"), ("-m", "lane_obs"), ("-c", ON_ASYNCIO))):
        summary, records = tmp_path / f"{number}.json", tmp_path / f"{number}.jsonl"
        outputs = ("--json", summary, "--records", records)
        done = run("replay", EXAMPLE, "--lanes", LANES, "--virtual", "--seed", 5, *outputs, command=command)
        assert (done.returncode, done.stderr) == (0, "")
        written.append((summary.read_bytes(), records.read_bytes()))
    assert written[0] == written[1] == written[2]


def test_real_time_at_a_higher_speed_runs_the_same_commands(write: Callable[..., Path], tmp_path: Path) -> None:
    trace = write("0,query,2,,\n5,query,5,,\n5,control,5,fail,\n")
    done = replay(trace, "--speed", "100", "--records", tmp_path / "r.jsonl")
    assert (done.returncode, done.stderr) == (1, "")
    records = records_in(tmp_path / "r.jsonl")
    assert [record["outcome"] for record in records] == ["succeeded", "succeeded", "failed"]
    assert all(float(str(record["submitted_at"])) >= 5 for record in records[1:])


def test_output_that_is_no_terminal_has_no_escape_codes() -> None:
    done = replay(EXAMPLE, "--virtual", "--lanes", LANES)
    assert done.stdout.startswith("at 0.0 s: 0 of 200 commands ended")
    assert "\x1b" not in done.stdout + done.stderr


def test_names_of_lanes_are_shown_as_they_are(write: Callable[..., Path]) -> None:
    lanes = write('[lanes."[red]x[/red]"]\n', "lanes.toml", "")
    done = replay(write("0,[red]x[/red],1,,\n"), "--virtual", "--lanes", lanes)
    assert "[red]x[/red]" in done.stdout


def test_an_output_that_cannot_show_a_name_shows_its_escape(write: Callable[..., Path]) -> None:
    lanes = write('[lanes."größe"]\n', "lanes.toml", "")
    trace = write("0,größe,1,,\n")
    environment = ENVIRONMENT | {"PYTHONIOENCODING": "ascii"}
    done = run("replay", trace, "--virtual", "--lanes", lanes, environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"gr\xf6\xdfe" in done.stdout


def test_a_trace_may_have_any_name(tmp_path: Path) -> None:
    trace = os.fsencode(tmp_path) + b"/:smile:[red]\xff.csv"
    with open(trace, "w") as file:
        file.write(HEADER + "0,query,1,,\n")
    done = replay(os.fsdecode(trace), "--virtual", "--json", tmp_path / "s.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert r":smile:[red]\udcff.csv: 1 command," in done.stdout
    assert json.loads((tmp_path / "s.json").read_text())["trace"].endswith(r":smile:[red]\udcff.csv")


def test_version_and_help() -> None:
    version, group_help, command_help = run("--version"), run("--help"), run("replay", "--help")
    assert version.stdout.startswith("lane-obs 0.")
    assert "replay" in group_help.stdout
    for option in ("TRACE", "--lanes", "--virtual", "--speed", "--skip-bad-rows", "--seed", "--json", "--records"):
        assert option in command_help.stdout
    assert [done.returncode for done in (version, group_help, command_help)] == [0, 0, 0]


def test_the_installed_command_is_the_module() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lane-obs"), "--version"], capture_output=True, check=True, timeout=LIMIT
    )
    assert done.stdout == run("--version").stdout.encode()


# --- a terminal


def read_all(descriptor: int) -> Iterator[str]:
    """What a terminal is sent, bit by bit, up to the end."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    while True:
        try:
            chunk = os.read(descriptor, 65_536)
        except OSError:  # Linux says so when the other end is closed
            return
        if not chunk:
            return
        yield decode(chunk)


@contextmanager
def on_a_terminal(*arguments: object) -> Iterator[tuple[subprocess.Popen[bytes], Iterator[str]]]:
    """A replay on a terminal, and what that is sent."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "lane_obs", "replay", *map(str, arguments)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        yield process, read_all(ours)
    os.close(ours)


def test_a_terminal_gets_a_live_table_with_a_progress_bar_and_then_the_summary(write: Callable[..., Path]) -> None:
    with on_a_terminal(write("0,query,1,,\n"), "--virtual") as (process, sent):
        shown = "".join(sent)
    assert process.returncode == 0
    assert "\x1b[" in shown
    assert "━" in shown  # the bar
    assert "of 1 commands, at" in shown
    assert shown.index("submitted") < shown.index("utilisation")


def test_an_interrupt_on_a_terminal_is_answered_above_the_live_table(write: Callable[..., Path]) -> None:
    with on_a_terminal(write("0,skill,0.2,,\n3600,skill,1,,\n")) as (process, sent):
        shown = ""
        while "skill" not in shown:  # the lane has appeared in the table
            shown += next(sent)
        process.send_signal(signal.SIGINT)
        shown += "".join(sent)
    assert process.returncode == 130
    assert shown.index("stopping once") < shown.index("stopped early") < shown.index("utilisation")


# --- bad input


def test_a_bad_row_is_named_with_all_that_is_wrong_and_nothing_runs(write: Callable[..., Path], tmp_path: Path) -> None:
    trace = write("0,query,1,,\n1,query,soon,,\n")
    done = replay(trace, "--virtual", "--records", tmp_path / "r.jsonl", "--json", tmp_path / "s.json")
    assert_refused(done, str(trace), "line 3", "'duration'", "'soon'", "finite seconds")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trace.csv"]


def test_bad_rows_can_be_skipped_and_are_reported(write: Callable[..., Path], tmp_path: Path) -> None:
    rows = "0,query,1,,\n1,query,soon,,\n2,nowhere,1,,\n3,query,1,hang,\n4,query,1,,\n"
    done = replay(write(rows), "--virtual", "--skip-bad-rows", "--json", tmp_path / "s.json")
    assert done.returncode == 0
    first, *others = done.stderr.splitlines()
    assert first == "skipped 3 bad rows:"
    assert ["line 3" in others[0], "line 4" in others[1], "line 5" in others[2]] == [True] * 3
    summary = json.loads((tmp_path / "s.json").read_text())
    assert [row["column"] for row in summary["skipped_rows"]] == ["duration", "lane", "outcome"]
    assert summary["total"]["count"] == 2


def test_a_quote_left_open_costs_its_own_row_only(write: Callable[..., Path], tmp_path: Path) -> None:
    rows = '0,query,1,,\n1,"query,1,,\n' + "2,query,1,,\n" * 50
    done = replay(write(rows), "--virtual", "--skip-bad-rows", "--records", tmp_path / "r.jsonl")
    assert done.returncode == 0
    assert done.stderr.startswith("skipped 1 bad row:\n")
    assert [int(str(record["id"])) for record in records_in(tmp_path / "r.jsonl")] == [2, *range(4, 54)]


def test_many_skipped_rows_do_not_flood_the_terminal(write: Callable[..., Path]) -> None:
    done = replay(write("x,query,1,,\n" * 50), "--virtual", "--skip-bad-rows")
    lines = done.stderr.splitlines()
    assert (done.returncode, lines[0], lines[-1].strip()) == (
        0,
        "skipped 50 bad rows:",
        "and 30 more (--json lists them all)",
    )
    assert len(lines) == 22


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ("0,qeury,1,,\n", ("line 2", "'lane'", "'qeury'", "'query'", "'prompt'")),
        ("0,query,1,hang,\n", ("line 2", "'outcome'", "'hang'", "never end", "deadline", "timeout")),
        ("soon,query,1,,\n", ("line 2", "'timestamp'", "'soon'", "ISO 8601")),
    ],
)
def test_rows_that_cannot_run(write: Callable[..., Path], rows: str, parts: tuple[str, ...]) -> None:
    assert_refused(replay(write(rows), "--virtual"), *parts)


def test_an_unknown_key_of_the_lanes_is_named_with_its_nearest_match(write: Callable[..., Path]) -> None:
    lanes = write("[lanes.api]\nmax_concurency = 5\n", "lanes.toml", "")
    done = replay(write("0,api,1,,\n"), "--virtual", "--lanes", lanes)
    assert_refused(done, str(lanes), "lanes.api.max_concurency", "did you mean 'max_concurrency'?")


def test_broken_toml_is_one_line(write: Callable[..., Path]) -> None:
    lanes = write("[lanes.api\n\n", "lanes.toml", "")
    assert_refused(replay(write("0,api,1,,\n"), "--virtual", "--lanes", lanes), str(lanes), "TOML")


def test_a_missing_trace_or_lanes_file(write: Callable[..., Path], tmp_path: Path) -> None:
    assert_refused(replay(tmp_path / "no.csv", "--virtual"), f"{tmp_path / 'no.csv'}: No such file or directory")
    done = replay(write("0,query,1,,\n"), "--virtual", "--lanes", tmp_path / "no.toml")
    assert_refused(done, f"{tmp_path / 'no.toml'}: No such file or directory")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--virtual", "--speed", "60"), ("--speed", "60", "--virtual")),
        (("--speed", "0"), ("speed", "0.0", "1e-06 to 1,000,000")),
        (("--speed", "nan"), ("speed", "nan", "1e-06 to 1,000,000")),
        (("--speed", "1e308"), ("speed", "1e+308", "1e-06 to 1,000,000")),
        (("--speed", "1e-308"), ("speed", "1e-308", "1e-06 to 1,000,000")),
        (("--virtual", "--prefill-seconds", "1e308"), ("prefill_seconds", "1e+308", "0 to 315576000")),
        (("--virtual", "--decode-seconds", "-1"), ("decode_seconds", "-1.0")),
    ],
)
def test_options_that_are_not_allowed(write: Callable[..., Path], options: tuple[str, ...], parts: tuple[str]) -> None:
    assert_refused(replay(write("0,query,1,,\n"), *options), *parts)


def test_options_that_are_no_numbers_or_unknown_are_usage_errors(write: Callable[..., Path]) -> None:
    trace = write("0,query,1,,\n")
    for options in (("--speed", "fast"), ("--seed", "1.5"), ("--nonsense",)):
        done = replay(trace, *options)
        assert done.returncode == 2
        assert options[0] in done.stderr
        assert "Traceback" not in done.stderr


# --- files


@pytest.mark.parametrize("option", ["--json", "--records"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_runs(
    write: Callable[..., Path], tmp_path: Path, option: str
) -> None:
    trace = write("0,query,1,,\n")
    for path in (tmp_path / "missing" / "file", tmp_path):
        assert_refused(replay(trace, "--virtual", option, path), option, str(path), "can be written")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trace.csv"]


def test_one_bad_file_of_two_leaves_nothing_of_the_other(write: Callable[..., Path], tmp_path: Path) -> None:
    files = ("--json", tmp_path / "s.json", "--records", tmp_path / "missing" / "r.jsonl")
    assert_refused(replay(write("0,query,1,,\n"), "--virtual", *files), "--records", "can be written")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trace.csv"]


def test_files_are_replaced_as_a_whole(write: Callable[..., Path], tmp_path: Path) -> None:
    old, link = tmp_path / "old.jsonl", tmp_path / "link.jsonl"
    old.write_text("old\n" * 1000)
    link.symlink_to(old)
    with old.open() as reader:
        assert replay(write("0,query,1,,\n"), "--virtual", "--records", link).returncode == 0
        assert reader.read() == "old\n" * 1000  # who reads it meanwhile sees no half of a new one
    assert link.is_symlink()
    assert len(records_in(old)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.jsonl", "old.jsonl", "trace.csv"]


def test_a_bad_row_leaves_an_existing_file_as_it_was(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("old")
    assert replay(write("0,query,x,,\n"), "--virtual", "--records", tmp_path / "r.jsonl").returncode == 2
    assert (tmp_path / "r.jsonl").read_text() == "old"


def test_a_device_is_written_to_and_not_replaced(write: Callable[..., Path]) -> None:
    done = replay(write("0,query,1,,\n"), "--virtual", "--json", "/dev/null", "--records", "/dev/null")
    assert (done.returncode, done.stderr) == (0, "")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize(("option", "count"), [("--json", 1), ("--records", 2)])
def test_standard_output_can_be_one_of_the_files_and_then_holds_nothing_else(
    write: Callable[..., Path], option: str, count: int
) -> None:
    done = replay(write("0,query,1,,\n1,query,1,,\n"), "--virtual", option, "/dev/stdout")
    assert done.returncode == 0
    values = (
        [json.loads(done.stdout)] if option == "--json" else [json.loads(line) for line in done.stdout.splitlines()]
    )
    assert len(values) == count
    assert "utilisation" in done.stderr  # a person who waits sees the summary all the same


def test_standard_output_that_is_a_file_is_written_to_and_not_replaced(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    trace, out = write("0,query,1,,\n"), tmp_path / "out.jsonl"
    for _ in range(2):
        with out.open("ab") as file:
            inode = os.fstat(file.fileno()).st_ino
            command = [sys.executable, "-m", "lane_obs", "replay", str(trace), "--virtual", "--records", "/dev/stdout"]
            done = subprocess.run(
                command, env=ENVIRONMENT, stdout=file, stderr=subprocess.PIPE, timeout=LIMIT, check=True
            )
        assert out.stat().st_ino == inode
    assert len(records_in(out)) == 2
    assert b"utilisation" in done.stderr


@pytest.mark.parametrize("option", ["--json", "--records"])
def test_a_pipe_of_the_shell_gets_the_whole_file(write: Callable[..., Path], tmp_path: Path, option: str) -> None:
    arguments = [option, tmp_path / "file"]
    assert replay(write("0,query,1,,\n" * 5000), "--virtual", *arguments).returncode == 0
    shell = 'exec "$0" -m lane_obs replay "$1" --virtual "$2" >(gzip > "$3.gz"; echo zipped)'
    done = subprocess.run(
        ["bash", "-c", shell, sys.executable, tmp_path / "trace.csv", *arguments],
        env=ENVIRONMENT,
        capture_output=True,  # its end is that of both processes
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b"zipped\n")
    assert gzip.decompress((tmp_path / "file.gz").read_bytes()) == (tmp_path / "file").read_bytes()


def test_a_named_pipe_stays_one(write: Callable[..., Path], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        done = replay(write("0,query,1,,\n"), "--virtual", "--records", pipe)
        received = os.read(reading, 65_536)
    finally:
        os.close(reading)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(received)["id"] == "2"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipe", "trace.csv"]


@pytest.mark.parametrize(("option", "other"), [("--json", "--records"), ("--records", "--json")])
@pytest.mark.parametrize("outcome", ["ok", "fail"])
def test_a_full_disk_costs_one_file_and_not_the_summary(
    write: Callable[..., Path], tmp_path: Path, option: str, other: str, outcome: str
) -> None:
    trace = write(f"0,query,1,{outcome},\n")
    done = replay(trace, "--virtual", option, "/dev/full", other, tmp_path / "file")
    assert done.returncode == 2
    assert "utilisation" in done.stdout
    assert done.stderr == "lane-obs: /dev/full: No space left on device\n"
    assert (tmp_path / "file").stat().st_size > 0


def test_every_file_that_could_not_be_written_is_named(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    done = replay(write("0,query,1,,\n"), "--virtual", "--json", "/dev/full", "--records", tmp_path / "full")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "lane-obs: /dev/full: No space left on device",
        f"lane-obs: {tmp_path / 'full'}: No space left on device",
    ]


@pytest.mark.parametrize("options", [("--virtual",), ("--speed", "100")])
def test_a_summary_that_finds_no_room_is_told(
    write: Callable[..., Path], tmp_path: Path, options: tuple[str, ...]
) -> None:
    arguments = ["replay", str(write("0,query,1,,\n")), *options, "--records", str(tmp_path / "r.jsonl")]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lane_obs", *arguments],
            env=ENVIRONMENT,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=LIMIT,
            check=False,
        )
    assert (done.returncode, done.stderr) == (2, b"lane-obs: standard output: No space left on device\n")
    assert len(records_in(tmp_path / "r.jsonl")) == 1


def test_a_closed_standard_output_is_no_fault(write: Callable[..., Path], tmp_path: Path) -> None:
    arguments = [write("0,query,1,,\n"), "--virtual", "--records", tmp_path / "r.jsonl"]
    done = subprocess.run(
        ["bash", "-c", 'exec "$@" >&-', "", sys.executable, "-m", "lane_obs", "replay", *arguments],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(records_in(tmp_path / "r.jsonl")) == 1


def test_no_file_is_both_read_and_written_or_written_twice(write: Callable[..., Path], tmp_path: Path) -> None:
    trace, same = write("0,query,1,,\n"), tmp_path / "same"
    assert_refused(replay(trace, "--virtual", "--records", trace), "--records", str(trace), "TRACE")
    assert_refused(replay(trace, "--virtual", "--records", same, "--json", same), str(same), "--json", "same file")
    assert trace.read_text().startswith("timestamp")


def test_a_reader_that_goes_away_does_not_spoil_the_replay(write: Callable[..., Path], tmp_path: Path) -> None:
    arguments = ["replay", str(write("0,query,1,fail,\n")), "--virtual", "--records", str(tmp_path / "r.jsonl")]
    with subprocess.Popen(
        [sys.executable, "-m", "lane_obs", *arguments], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        process.stdout = None
        errors = process.communicate(timeout=LIMIT)[1]
    assert (process.returncode, errors) == (1, b"")
    assert len(records_in(tmp_path / "r.jsonl")) == 1


# --- interrupts


def lines_until(stream: IO[str], start: str) -> list[str]:
    lines = []
    for line in stream:
        lines.append(line)
        if line.startswith(start):
            return lines
    raise AssertionError(f"no line starts with {start!r}: {lines}")


def rest(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What else it wrote when it has ended, and its errors. `communicate` leaves out what `lines_until` read ahead."""
    assert process.stdout is not None
    assert process.stderr is not None
    process.wait(LIMIT)  # it writes less than a pipe holds
    return process.stdout.read(), process.stderr.read()


def interrupted(trace: Path, outputs: tuple[object, ...], *signals: signal.Signals) -> tuple[int, str, str]:
    """Runs in real time and sends each signal once the last one has been heard."""
    with subprocess.Popen(
        [sys.executable, "-m", "lane_obs", "replay", str(trace), *map(str, outputs)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        heard = "at 0.0 s: 0 of"
        for number in signals:
            lines_until(process.stdout, heard)
            process.send_signal(number)
            heard = "stopping once"
        out, errors = rest(process)
    return process.returncode, out, errors


def test_the_first_interrupt_drains_and_the_files_tell_what_was_done(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    trace = write("0,skill,0.4,,\n" * 4 + "3600,skill,1,,\n")  # three at a time: the fourth waits
    outputs = ("--records", tmp_path / "r.jsonl", "--json", tmp_path / "s.json")
    code, out, errors = interrupted(trace, outputs, signal.SIGINT)
    assert (code, errors) == (130, "")
    assert "stopping once all that was sent has ended (left: 4)" in out
    assert "stopped early; commands not submitted: 1" in out
    assert "utilisation" in out
    assert [record["outcome"] for record in records_in(tmp_path / "r.jsonl")] == ["succeeded"] * 4
    assert json.loads((tmp_path / "s.json").read_text())["not_submitted"] == 1


def test_the_second_interrupt_cancels_at_once(write: Callable[..., Path], tmp_path: Path) -> None:
    trace = write("0,skill,3600,,\n")
    code, _out, errors = interrupted(trace, ("--records", tmp_path / "r.jsonl"), signal.SIGINT, signal.SIGINT)
    assert (code, errors) == (130, "")
    assert [record["outcome"] for record in records_in(tmp_path / "r.jsonl")] == ["cancelled"]


def test_a_request_to_terminate_drains_as_well(write: Callable[..., Path], tmp_path: Path) -> None:
    trace = write("0,skill,0.2,,\n3600,skill,1,,\n")
    code, _out, errors = interrupted(trace, ("--records", tmp_path / "r.jsonl"), signal.SIGTERM)
    assert (code, errors) == (143, "")
    assert len(records_in(tmp_path / "r.jsonl")) == 1
