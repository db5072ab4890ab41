"""The scripts: put together from their parts, with the keys that each needs."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

from lane_obs.distributed.redis.link import Script

_PARTS: Final = re.compile(r"^--@ (.*)$", re.MULTILINE)
_SELDOM: Final = re.compile(r"^--@late (.*)$", re.MULTILINE)
_KEY: Final = re.compile(r"\bk_([a-z_]+)\b")
_COLD: Final = "--@cold\n"
_LATE: Final = """
setmetatable(Q, {{ __index = function(_, name)
setmetatable(Q, nil)
{}
return Q[name]
end }})
"""
_GROWING: Final = frozenset({"submit", "requeue"})
"""What a server without memory refuses; all else must go on, so that work ends and memory gets free."""
_REMARK: Final = re.compile(r"^ *--.*\n|^ +", re.MULTILINE)


class Program(NamedTuple):
    """A script, and the names of its keys in their order."""

    script: Script
    keys: tuple[str, ...]


@cache
def load(name: str) -> Program:
    """The script of this name.

    Its first line names the parts that go before it. `k_NAME` in it is the key of that name, whichever part asks for
    it; no key is built in a script. What comes after `--@cold` in a part is made when it is first asked for: most runs
    need none of it, and to make all functions takes longer than what they do. The parts that a line `--@late` names are
    made when the script calls `Q.late`.
    """
    text = _read(name)
    halves = _halves(_PARTS, text)
    seldom = "".join(cold for _, _, cold in halves)
    late = _LATE.format(seldom) if seldom else ""
    if rare := _halves(_SELDOM, text):
        late += "function Q.late()\n{}end\n".format("".join(f"{hot}{cold}" for hot, _, cold in rare))
    whole = _REMARK.sub("", "".join(hot for hot, _, _ in halves) + late + text)
    keys = tuple(dict.fromkeys(_KEY.findall(whole)))
    numbers = {key: number for number, key in enumerate(keys, 1)}
    # No local for each: a script may have 200, and each makes every function that follows dearer to make.
    whole = _KEY.sub(lambda found: f"K[{numbers[found[1]]}]", whole)
    flags = "" if name in _GROWING else "#!lua flags=allow-oom\n"
    return Program(Script(name, f"{flags}local K, Q = KEYS, {{}}\n{whole}"), keys)


def _halves(line: re.Pattern[str], text: str) -> list[tuple[str, str, str]]:
    """The parts that a line names, each as what is made at once and what is not."""
    found = line.search(text)
    return [_read(part).partition(_COLD) for part in found[1].split()] if found else []


def _read(name: str) -> str:
    return files("lane_obs.distributed.redis").joinpath("scripts", f"{name}.lua").read_text("utf-8")
