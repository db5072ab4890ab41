"""Runs async tests, and fails every test that leaves a task, timer or thread behind or an exception unretrieved."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from lane_obs import VirtualClock
from lane_obs.runtime.run import loop_factory
from tests.integration.servers.fixtures import _one_server, engine, server, start_server  # noqa: F401 - for all tests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

_clocks: list[VirtualClock] = []


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_loops: runs on uvloop and on asyncio's own event loop")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("both_loops") is not None:
        metafunc.fixturenames.append("loop_kind")
        metafunc.parametrize("loop_kind", ["uvloop", "asyncio"])


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a coroutine test on a loop of its own and looks for what it left there."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names if name in pyfuncitem.funcargs}
    run_clean(pyfuncitem.obj, kind=pyfuncitem.funcargs.get("loop_kind", "uvloop"), **arguments)
    return True


def run_clean(test: Callable[..., Any], *, kind: str = "uvloop", **arguments: Any) -> Any:
    """Runs `test(**arguments)` on a new loop and checks that nothing is left of it."""
    faults: list[dict[str, Any]] = []

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: faults.append(context))
        result = await test(**arguments)
        await asyncio.sleep(0)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and not task.done()]
        assert not left, f"tasks left behind: {left}"
        scheduled = [handle for handle in getattr(loop, "_scheduled", ()) if not handle.cancelled()]
        assert not scheduled, f"timers left behind: {scheduled}"
        return result

    with asyncio.Runner(loop_factory=loop_factory() if kind == "uvloop" else None) as runner:
        result = runner.run(main())
        gc.collect()  # an exception that nobody retrieved is reported when its future is collected
    assert not faults, f"the event loop had to report: {faults}"
    return result


@pytest.fixture
def clock() -> VirtualClock:
    """A virtual clock on which no timer may be left at the end."""
    made = VirtualClock()
    _clocks.append(made)
    return made


@pytest.fixture(autouse=True, scope="module")
def small_heap() -> None:
    """Sets aside what is loaded so far: each test collects garbage, and the modules alone take 60 ms a time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Checks that the test's virtual clocks and the library's threads are at rest."""
    yield
    clocks, _clocks[:] = list(_clocks), []
    for made in clocks:
        assert made.pending == 0, f"{made.pending} timers left on the virtual clock"
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("lane-obs")]
    for thread in threads:
        thread.join(1)  # one that was told to end may be in its last instructions
    assert not any(thread.is_alive() for thread in threads), f"threads left behind: {threads}"
