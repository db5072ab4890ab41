"""A real Prometheus shows the console pages of a real queue, and a real browser draws them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import struct
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import prometheus_client
import pytest

from dashboards import consoles
from lane_obs import LaneConfig, MemorySink, MonitorConfig, QueueManager, QueueMonitor
from lane_obs.alerts import Rule
from lane_obs.alerts.prometheus import prometheus_rules
from lane_obs.metrics.catalogue import BLOCKED_BY
from lane_obs.observability import Metrics, Observability
from tests.conftest import run_clean
from tests.integration.services import grafana
from tests.integration.services.browser import Browser, read_png
from tests.integration.services.document import read_html
from tests.integration.services.process import free_port, poll
from tests.integration.services.prometheus import Prometheus
from tests.integration.services.tools import require

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from lane_obs.events import LaneEvent
    from tests.integration.services.browser import Seen
    from tests.integration.services.document import Element

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = Path(os.environ.get("CI_ARTIFACTS") or ROOT / "artifacts")
SCRAPE, JOB, QUEUE = 0.5, "lane-obs", "shop & <b>co</b>"
OVERVIEW, LANE = "lane-obs.html", "lane-obs-lane.html"

SCRIPT = "<script>alert(1)</script>"
QUOTES = 'a"b\\c\'d`{{ "x" }} @lanes@ |.*&lane=x#é'
QUERY = '"} or vector(7) or lane_info{lane="'
NONE = "\N{EN DASH}"  # where there is no value
READY = {"held": 4, "busy": 2, SCRIPT: 4, QUOTES: 2, QUERY: 1, "failing": 0, "good": 0}
"""All lanes, each with how many commands of it wait to start."""

RULES = (
    Rule(measure="ready_depth", warning=1, critical=3),
    Rule(measure="ready_depth", warning=5, lanes=(SCRIPT, QUERY)),
    Rule(measure="oldest_ready_age", warning=0.25, lanes=(QUOTES,)),
    Rule(measure="error_ratio", critical=0.5, window_seconds=300, min_rate=0),
    Rule(measure="active", per="queue", warning=1),
)
CONFIG = MonitorConfig(
    interval=SCRAPE / 2, pending_warning_threshold=None, active_warning_threshold=None, rules=RULES, queue=QUEUE
)
FIRING = {
    ("critical", "LaneErrorRatioHigh", "failing"),
    ("critical", "LaneReadyDepthHigh", "held"),
    ("warning", "LaneOldestReadyAgeHigh", QUOTES),
    ("warning", "LaneReadyDepthHigh", "busy"),
    ("warning", "LaneReadyDepthHigh", QUOTES),
    ("warning", "QueueActiveHigh", ""),
}
"""The worst of each alert that the rules give here."""

BAD = {
    "a query": '"} or vector(1) #',
    "a template": "{{ query `vector(1)` }}",
    "markup": "<img src=x onerror=alert(1)>",
    "an expression": "(",
    "lines": "a\n\tb",
    "bytes": "\udcff\udcfe",
    "any lane": ".*",
}


# --- a queue ----------------------------------------------------------------------------------------------------


class Broken:
    """A sink that fails at everything."""

    def handle(self, events: Sequence[LaneEvent]) -> None:
        raise OSError("no space left on device")

    def close(self) -> None:
        pass


async def work() -> None:
    await asyncio.sleep(0)


async def fail() -> None:
    raise ValueError("bad")


@contextlib.asynccontextmanager
async def shop(prometheus: Prometheus, port: int) -> AsyncIterator[None]:
    """The queue with its monitor, when all that is to happen in it has been scraped."""
    release, memory = asyncio.Event(), MemorySink()
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.ProcessCollector(registry=registry)
    observe = Observability(
        logs=False, metrics=Metrics(registry=registry, port=port), traces=False, recorder=False, queue=QUEUE
    )
    lanes = {name: LaneConfig(0, 2, priority=index) for index, name in enumerate(READY)}
    async with QueueManager(lanes, sinks=[memory, Broken()], observe=observe) as manager:
        monitor = QueueMonitor(manager, CONFIG)
        await monitor.start()
        for name in ("held", SCRIPT, QUOTES, QUERY):
            manager.pause(name)
        await asyncio.to_thread(prometheus.wait_for_scrape, time.time())  # of zeros: a rate needs two values
        for name, count in READY.items():
            await manager.submit_many(name, [release.wait] * (count + 2 * (name == "busy")))
        for command, name in ((fail, "failing"), (work, "good")):
            for handle in await manager.submit_many(name, [command] * 20):
                with contextlib.suppress(ValueError):
                    await handle
        try:
            await asyncio.to_thread(poll, lambda: fires(prometheus), 30, lambda: f"the alerts: {prometheus.alerts()}")
            yield
        finally:
            release.set()
            for name in ("held", SCRIPT, QUOTES, QUERY):
                manager.resume(name)
            await monitor.stop()


def fires(prometheus: Prometheus) -> bool | None:
    """Whether all alerts fire in Prometheus, and it has seen them fire in the monitor."""
    own = {
        (labels["severity"], labels["alertname"], labels.get("lane", ""))
        for labels, _ in prometheus.query('ALERTS{alertstate="firing"}')
    }
    seen = prometheus.query("lane_alert_state > 0")
    monitor = {
        ("critical" if state == 2 else "warning", labels["alert"], labels.get("lane", "")) for labels, state in seen
    }
    # The bars of a minute need a value at a whole second, and rates two scrapes before it.
    ((_, scrapes),) = prometheus.query("min(count_over_time(lane_info[1m]))") or [({}, 0.0)]
    return (own >= FIRING and monitor == FIRING and scrapes * SCRAPE >= 3) or None


# --- pages of it ------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Shown:
    """What Prometheus answered, by what was asked for; and what a browser made of it, where there is one."""

    pages: dict[str, str]
    browser: Browser | None
    seen: dict[str, Any]

    def page(self, name: str, **parameters: str) -> Element:
        """A page as a tree."""
        return read_html(self.pages[address(name, **parameters)])

    @property
    def lanes(self) -> dict[str, dict[str, Element]]:
        """The rows of the table of lanes on the overview, by lane."""
        return {row["Lane"].one("a").text: row for row in self.page(OVERVIEW).one("table", "lanes").table()}


def address(name: str, **parameters: str) -> str:
    query = urllib.parse.urlencode({"span": "1m", **parameters}, errors="surrogateescape")
    return f"{name}?{query}"


def look(prometheus: Prometheus, browser: Browser | None) -> Shown:
    """Opens every page that the tests are about."""
    wanted = [
        *(address(name) for name in (OVERVIEW, LANE, f"shipped/{OVERVIEW}")),
        *(address(page, lane=name, queue=QUEUE) for name in READY for page in (LANE, f"shipped/{LANE}")),
        *(address(OVERVIEW, span=span) for span in (*consoles.SPANS, '1m"})', "5m")),
        address(OVERVIEW, refresh="1"),
        *(address(OVERVIEW, **{name: bad}) for name in ("job", "instance", "queue") for bad in BAD.values()),
        *(address(LANE, lane=bad) for bad in BAD.values()),
    ]
    root = f"{prometheus.url}/consoles"
    pages = {which: unbroken(prometheus, lambda url=f"{root}/{which}": get(url)) for which in wanted}
    seen = {}
    if browser is not None:
        for which, dark in ((address(OVERVIEW), False), (address(OVERVIEW), True), (lane_address(SCRIPT), False)):
            name = f"{which} {'dark' if dark else 'light'}"
            seen[name] = opened(browser, f"{root}/{which}", dark=dark, until=pages[which])
    return Shown(pages, browser, seen)


def unbroken(prometheus: Prometheus, load: Callable[[], str]) -> str:
    """What `load` gives at a time when no scrape failed: on a busy machine one may, and then nothing has a value."""

    def tried() -> str | None:
        begun = poll(lambda: time.time() if fires(prometheus) else None, 30, lambda: str(prometheus.alerts()))
        found = load()
        ups = prometheus.samples("up", begun - 2 * SCRAPE, time.time())
        return found if all(up for _, values in ups for _, up in values) else None

    return poll(tried, 60, lambda: f"scraped without a gap: {prometheus.targets()}")


def opened(browser: Browser, url: str, *, dark: bool, until: str) -> Seen:
    """What a browser makes of a page that shows what it showed before; one loaded after a failed scrape does not."""

    def tables(page: str) -> list[tuple[str, int]]:
        return [(table.attributes.get("class", ""), len(table.all("tr"))) for table in read_html(page).all("table")]

    def tried() -> Seen | None:
        seen = browser.open(url, dark=dark)
        return seen if tables(seen.document) == tables(until) else None

    return poll(tried, 60, lambda: f"{url} in a browser")


def lane_address(lane: str) -> str:
    return address(LANE, lane=lane, queue=QUEUE)


def get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
            text: str = answer.read().decode(errors="replace")  # as a browser does
            return text
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{url}: {error.code}\n{error.read().decode(errors='replace')}") from error


async def run(prometheus: Prometheus, port: int, browser: Browser | None) -> Shown:
    async with shop(prometheus, port):
        return await asyncio.to_thread(look, prometheus, browser)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """One run for all tests: the pages with the levels of the rules here, and those that are shipped."""
    directory, port = tmp_path_factory.mktemp("consoles"), free_port()
    rules, pages = directory / "rules.yml", directory / "pages"
    rules.write_text(prometheus_rules(CONFIG.specs, SCRAPE))
    (pages / "shipped").mkdir(parents=True)
    for name, make in consoles.PAGES.items():
        (pages / name).write_text(make(CONFIG.specs))
        (pages / "shipped" / name).write_bytes((ROOT / "dashboards" / "consoles" / name).read_bytes())
    browser = Browser(directory / "browser") if shutil.which("chromium") else None
    targets = {JOB: f"127.0.0.1:{port}"}
    with Prometheus(
        directory / "data", targets, interval_seconds=SCRAPE, rule_files=[rules], consoles=pages
    ) as prometheus:
        prometheus.wait_for_targets()
        yield run_clean(run, prometheus=prometheus, port=port, browser=browser)


@pytest.fixture
def browser(shown: Shown) -> Shown:
    """The same, where a browser has seen it."""
    require("chromium")
    return shown


def number(cell: Element) -> str:
    """What a cell says before its unit or limit."""
    return cell.text.lstrip("▲◆").split(" ")[0]


def word(cell: Element) -> str:
    return cell.text.lstrip("▲◆")


def lane_of(row: dict[str, Element]) -> str:
    return "" if row["Lane"].text == "all" else row["Lane"].text


def tile_of(page: Element, title: str) -> str:
    (found,) = (tile for tile in page.all("div", "tile") if tile.one("h3").text.lstrip("▲◆") == title)
    return found.one("b").text


# --- what the pages say -----------------------------------------------------------------------------------------


def test_each_lane_has_a_row_in_the_order_of_priority(shown: Shown) -> None:
    assert list(shown.lanes) == list(READY)


def test_the_numbers_of_the_lanes_are_those_of_the_queue(shown: Shown) -> None:
    for name, row in shown.lanes.items():
        assert (number(row["Ready"]), number(row["Delayed"]), number(row["Backoff"])) == (str(READY[name]), "0", "0")
        assert row["Running"].text == ("2 / 2" if name == "busy" else "0 / 2")
        assert row["Dead letters"].text == ("20" if name == "failing" else "0")
    assert number(shown.lanes["failing"]["Errors"]) == "100%"
    assert number(shown.lanes["good"]["Errors"]) == "0%"
    assert shown.lanes["held"]["Errors"].text == NONE
    assert shown.lanes["good"]["Wait p99"].text.endswith("s")
    assert shown.lanes["held"]["Wait p99"].text == NONE


def test_a_lane_says_what_blocks_it(shown: Shown) -> None:
    blocked = {name: row["Blocked by"].text.split(" ")[0] for name, row in shown.lanes.items()}
    assert blocked == {
        "held": "pause", "busy": "slots", SCRIPT: "pause", QUOTES: "pause", QUERY: "pause", "failing": "", "good": ""
    }  # fmt: skip


def test_values_have_the_colours_of_the_levels_that_they_are_above_each_lane_its_own(shown: Shown) -> None:
    def grades(column: str) -> dict[str, str]:
        return {name: row[column].attributes["class"].removeprefix("n").strip() for name, row in shown.lanes.items()}

    none = dict.fromkeys(READY, "")
    assert grades("Ready") == none | {"held": "critical", "busy": "warning", QUOTES: "warning"}
    assert grades("Oldest ready") == none | {QUOTES: "warning"}
    assert grades("Errors") == none | {"failing": "critical"}
    assert grades("Dead letters") == grades("Wait p99") == none
    # Not by colour alone.
    assert shown.lanes["held"]["Ready"].one("span", "sign").attributes["aria-label"] == "critical"
    assert shown.lanes[QUOTES]["Oldest ready"].text.endswith("/ 0.25 s")


def test_the_alerts_that_fire_are_shown_with_what_is_known_of_them(shown: Shown) -> None:
    rows = shown.page(OVERVIEW).one("table", "alerts").table()
    found = {(word(row["Severity"]), row["Alert"].one("a").text, lane_of(row)): row for row in rows}
    assert set(found) == FIRING
    assert [word(row["Severity"]) for row in rows] == ["critical"] * 2 + ["warning"] * 4
    runbooks = {spec.alert: spec.runbook for spec in CONFIG.specs}
    for (severity, alert, _), row in found.items():
        assert row["Alert"].one("a").attributes["href"] == runbooks[alert]
        assert row["Queue"].text == QUEUE
        assert row["In the program"].text == severity
        assert row["In Prometheus"].text.startswith(f"{severity} active for ")
    held = found["critical", "LaneReadyDepthHigh", "held"]
    assert (held["Value"].text, held["Level"].text) == ("4", "above 3")
    quotes = found["warning", "LaneReadyDepthHigh", QUOTES]
    assert (quotes["Value"].text, quotes["Level"].text) == ("2", "above 1")
    active = found["warning", "QueueActiveHigh", ""]
    assert (active["Value"].text, active["Level"].text) == ("2", "above 1")
    assert found["critical", "LaneErrorRatioHigh", "failing"]["Value"].text == "100%"


def test_the_numbers_at_the_top_are_those_of_all_lanes(shown: Shown) -> None:
    tiles = {tile.one("h3").text: tile for tile in shown.page(OVERVIEW).all("div", "tile")}
    grades = {title.lstrip("▲◆"): tile.attributes["class"] for title, tile in tiles.items()}
    assert grades == {
        "Submitted": "tile ", "Ended": "tile ", "Worst error ratio": "tile critical",
        "Worst ready age": "tile warning", "Worst wait p99": "tile ", "Alerts firing": "tile ",
    }  # fmt: skip
    assert tiles["◆Worst error ratio"].one("b").text == "100%"
    assert (
        tiles["Alerts firing"].one("p").text == f"{len(FIRING)} monitor {len(FIRING) + 1} Prometheus"
    )  # a warning, too


def test_a_sink_that_was_cut_off_and_the_process_are_shown(shown: Shown) -> None:
    sinks = {row["Sink"].text: row for row in shown.page(OVERVIEW).one("table", "sinks").table()}
    assert {"Broken", "MemorySink", "PrometheusSink"} <= set(sinks)
    assert sinks["Broken"]["Cut off"].text == "1"
    assert sinks["MemorySink"]["Cut off"].text == "0"
    assert float(sinks["Broken"]["Failures"].text) > 0
    (process,) = shown.page(OVERVIEW).one("table", "processes").table()
    assert process["Instance"].text.startswith("127.0.0.1:")
    assert process["Up for"].text.endswith("s")
    assert process["Memory"].text.endswith("MiB")


def test_an_overview_leads_to_each_lane_whatever_its_name(shown: Shown) -> None:
    for name, row in shown.lanes.items():
        link = row["Lane"].one("a").attributes["href"]
        path, _, query = link.partition("?")
        assert (path, urllib.parse.parse_qs(query, strict_parsing=True)) == (
            LANE, {"lane": [name], "queue": [QUEUE], "span": ["1m"]}
        )  # fmt: skip
        page = shown.page(LANE, lane=name, queue=QUEUE)
        assert page.one("h1").text == f"Lane {name}"
        assert page.one("title").text == f"{name}, lane_obs"
        assert tile_of(page, "Ready") == str(READY[name])
        assert tile_of(page, "Running") == ("2" if name == "busy" else "0")
        assert tile_of(page, "Priority") == str(list(READY).index(name))


def test_a_lane_has_its_own_alerts_and_those_of_the_queue(shown: Shown) -> None:
    for name in READY:
        tables = shown.page(LANE, lane=name, queue=QUEUE).all("table", "alerts")
        found = {lane_of(row) for table in tables for row in table.table()}
        assert found == {lane for _, _, lane in FIRING} & {name, ""}


def test_a_lane_has_all_panels_of_its_dashboard_with_their_courses(shown: Shown) -> None:
    board = grafana.read("lane.json")
    titles = [panel["title"] for panel in grafana.panels(board) if panel["type"] in ("timeseries", "bargauge")]
    page = shown.page(LANE, lane="held", queue=QUEUE)
    cards = {card.one("h3").text: card for card in page.all("section", "card")}
    assert list(cards) == titles
    causes = {row.one("th").text: row for row in cards["Wait by cause"].one("tbody").all("tr")}
    assert list(causes) == sorted(BLOCKED_BY)
    assert causes["pause"].all("td")[-1].text not in ("0%", NONE)
    assert causes["slots"].all("td")[-1].text == "0%"
    (ready,) = cards["Ready commands"].one("tbody").all("tr")
    assert [cell.text for cell in ready.all("td")] == ["", "4", "4"]
    steps = [path.attributes["class"] for path in ready.all("path")]
    assert steps.count("critical") > 1  # bars above the level
    assert {"level warning", "level critical"} < set(steps)
    assert cards["Stuck"].one("tbody").all("td")[1].text == "0"


def test_the_pages_that_are_shipped_show_the_same_queue(shown: Shown) -> None:
    page = shown.page(f"shipped/{OVERVIEW}")
    rows = {row["Lane"].one("a").text: row for row in page.one("table", "lanes").table()}
    assert {name: number(row["Ready"]) for name, row in rows.items()} == {name: str(READY[name]) for name in READY}
    assert {lane_of(row) for row in page.one("table", "alerts").table()} == {lane for _, _, lane in FIRING}
    assert "Prometheus has none of these rules" in page.text  # those of this test have other names
    for name in READY:
        assert shown.page(f"shipped/{LANE}", lane=name, queue=QUEUE).one("h1").text == f"Lane {name}"


def test_a_page_about_no_lane_names_all_there_are(shown: Shown) -> None:
    links = [link.attributes["href"] for link in shown.page(LANE).one("ul").all("a")]
    assert {urllib.parse.parse_qs(link.partition("?")[2])["lane"][0] for link in links} == set(READY)


# --- what nobody may make them say ------------------------------------------------------------------------------


def test_no_page_has_a_script_or_anything_else_that_a_name_brought_in(shown: Shown) -> None:
    known = {
        "a", "b", "body", "br", "code", "dd", "details", "div", "dl", "dt", "g", "h1", "h2", "h3", "head", "header",
        "html", "i", "li", "link", "main", "meta", "nav", "p", "path", "section", "small", "span", "strong", "style",
        "summary", "svg", "table", "tbody", "td", "th", "thead", "title", "tr", "ul",
    }  # fmt: skip
    for which, text in shown.pages.items():
        elements = read_html(text).all()
        assert {one.tag for one in elements} <= known, which
        assert not [name for one in elements for name in one.attributes if name.startswith("on")], which
        assert not [one for one in elements if one.attributes.get("href", "").startswith("javascript:")], which


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_parameter_finds_nothing_and_breaks_nothing(shown: Shown, bad: str) -> None:
    for name in ("job", "instance", "queue"):
        page = shown.page(OVERVIEW, **{name: bad})
        assert page.all("table", "lanes") == []
        assert "Prometheus has no metrics of a queue" in page.text
    page = shown.page(LANE, lane=bad)
    assert "Prometheus has no lane of this name" in page.text
    assert page.all("div", "tile") == []


@pytest.mark.parametrize("span", consoles.SPANS)
def test_a_page_looks_back_as_far_as_it_is_told(shown: Shown, span: str) -> None:
    page = shown.page(OVERVIEW, span=span)
    assert span in {one.text for one in page.all("strong")}
    (ready,) = {head.text for head in page.one("table", "lanes").all("th") if head.text.startswith("Ready, ")}
    assert ready == f"Ready, last {span}"


@pytest.mark.parametrize("span", ['1m"})', "5m"])
def test_a_span_that_is_none_is_the_usual_one(shown: Shown, span: str) -> None:
    assert "1h" in {one.text for one in shown.page(OVERVIEW, span=span).all("strong")}


def test_a_page_loads_itself_again_only_where_it_is_asked_to(shown: Shown) -> None:
    def metas(**parameters: str) -> set[str]:
        return {meta.attributes.get("http-equiv", "") for meta in shown.page(OVERVIEW, **parameters).all("meta")}

    assert "refresh" not in metas()
    assert "refresh" in metas(refresh="1")


# --- what a browser makes of them -------------------------------------------------------------------------------


def test_a_browser_shows_what_prometheus_sent_and_complains_of_nothing(browser: Shown) -> None:
    for which, seen in browser.seen.items():
        assert seen.messages == [], which
    rows = read_html(browser.seen[f"{address(OVERVIEW)} light"].document).one("table", "lanes").table()
    assert [row["Lane"].one("a").text for row in rows] == list(READY)


def test_the_picture_is_one_of_the_page(browser: Shown) -> None:
    light, dark = (read_png(browser.seen[f"{address(OVERVIEW)} {which}"].picture) for which in ("light", "dark"))
    for picture, paper, warning, critical in (
        (light, (255, 255, 255), (255, 241, 214), (253, 229, 228)),
        (dark, (20, 23, 27), (56, 42, 18), (66, 28, 29)),
    ):
        assert (picture.width, picture.height) == (1280, 900)
        colours = picture.colours()
        assert colours.most_common(1)[0][0] == paper
        assert len(colours) > 200  # letters have soft edges
        assert min(colours[warning], colours[critical]) > 500  # the cells of values above their levels
        # Nothing is wider than the window.
        assert {colour for x in range(1264, 1280) for colour in picture.column(x)} == {paper}


def test_pictures_are_kept(browser: Shown) -> None:
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    for name, which in (
        ("console-overview.png", f"{address(OVERVIEW)} light"),
        ("console-overview-dark.png", f"{address(OVERVIEW)} dark"),
        ("console-lane.png", f"{lane_address(SCRIPT)} light"),
    ):
        (ARTIFACTS / name).write_bytes(browser.seen[which].picture)


def test_the_picture_in_the_documents_is_of_that_size_and_small() -> None:
    picture = (ROOT / "docs" / "images" / "console.png").read_bytes()
    assert struct.unpack_from(">II", picture, 16) == (1280, 900)
    assert len(picture) < 150_000
