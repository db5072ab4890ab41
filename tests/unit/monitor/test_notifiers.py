"""The notifiers: what they send, what they make of the answers, and what they never show. Real sockets throughout."""

from __future__ import annotations

import base64
import email.utils
import functools
import json
import logging
import math
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import ConfigError, RetryAfter, VirtualClock
from lane_obs.monitor.notify import (
    Alert,
    AlertmanagerNotifier,
    AlertState,
    CallbackNotifier,
    NotificationError,
    NotificationRefused,
    Notifier,
    WebhookNotifier,
    notifier_from,
)
from lane_obs.monitor.payload import fingerprint
from tests.integration.services.alertmanager import WebhookReceiver
from tests.integration.services.process import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

AT = 1_767_225_600.0  # 2026-01-01
SECRET = "hunter2"
PROXIES = [name for word in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for name in (word, word.upper())]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


def alert(state: str = "firing", lane: str | None = "query", **changes: Any) -> Alert:
    given = {
        "alert": "LaneOldestReadyAgeHigh",
        "rule": "oldest_ready_age",
        "severity": "warning",
        "state": AlertState(state),
        "queue": "demo",
        "lane": lane,
        "value": 75.0,
        "threshold": 60.0,
        "since": AT,
        "fired_at": AT + 60,
        "ended_at": AT + 90.5 if state == "resolved" else None,
        "summary": f"too old in {lane}",
        "description": "75 s, above 60 s",
        "runbook": "https://runbook#oldest-ready-age",
    }
    return Alert(**{**given, **changes})


# --- the callback -----------------------------------------------------------------------------------------------


async def test_a_callback_gets_one_alert_at_a_time_whether_it_is_async_or_not() -> None:
    told: list[tuple[str, str | None]] = []

    async def later(alert: Alert) -> None:
        told.append(("later", alert.lane))

    def at_once(alert: Alert) -> None:
        told.append(("at once", alert.lane))

    for callback in (later, at_once):
        notifier = CallbackNotifier(callback)
        assert isinstance(notifier, Notifier)
        await notifier.notify([alert(), alert(lane=None)])
        await notifier.close()
    assert told == [("later", "query"), ("later", None), ("at once", "query"), ("at once", None)]


async def test_what_a_callback_raises_is_passed_on() -> None:
    def broken(_: Alert) -> None:
        raise LookupError("nobody is on call")

    with pytest.raises(LookupError, match="nobody is on call"):
        await CallbackNotifier(broken).notify([alert()])


def test_a_callback_is_called_by_its_name() -> None:
    def page(_: Alert) -> None:
        pass

    assert CallbackNotifier(page).name == "page"
    assert CallbackNotifier(functools.partial(page)).name == "partial"
    assert CallbackNotifier(page, "pager").name == "pager"
    assert repr(CallbackNotifier(page, "pager")) == "<CallbackNotifier 'pager'>"
    with pytest.raises(ConfigError, match=r"^name: "):
        CallbackNotifier(page, "")
    with pytest.raises(ConfigError, match=r"^callback: 5 is not allowed; give a function"):
        CallbackNotifier(5)  # type: ignore[arg-type]


# --- the webhook ------------------------------------------------------------------------------------------------


async def test_a_webhook_gets_what_alertmanager_would_post(receiver: WebhookReceiver) -> None:
    notifier = WebhookNotifier(
        f"{receiver.url}/hook?team=a", name="team", generator_url="http://dash", external_url="http://app",
        headers={"X-Key": "k"},
    )  # fmt: skip
    traced = alert("resolved", "präzise", severity="critical", trace_id="ab" * 16)
    await notifier.notify([alert(), traced])
    await notifier.close()
    ((path, headers, body),) = receiver.requests
    assert path == "/hook?team=a"
    assert (headers["Content-Type"], headers["X-Key"]) == ("application/json", "k")
    common = {"description": "75 s, above 60 s", "runbook_url": "https://runbook#oldest-ready-age"}
    labels = {"alertname": "LaneOldestReadyAgeHigh", "queue": "demo"}
    one = {**labels, "severity": "warning", "lane": "query"}
    other = {**labels, "severity": "critical", "lane": "präzise"}
    assert json.loads(body) == {
        "version": "4",
        "groupKey": '{}:{queue="demo"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "team",
        "groupLabels": {"queue": "demo"},
        "commonLabels": labels,
        "commonAnnotations": common,
        "externalURL": "http://app",
        "alerts": [
            {
                "status": "firing",
                "labels": one,
                "annotations": {**common, "summary": "too old in query"},
                "startsAt": "2026-01-01T00:01:00.000Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://dash",
                "fingerprint": fingerprint(one),
            },
            {
                "status": "resolved",
                "labels": other,
                "annotations": {**common, "summary": "too old in präzise", "trace_id": "ab" * 16},
                "startsAt": "2026-01-01T00:01:00.000Z",
                "endsAt": "2026-01-01T00:01:30.500Z",
                "generatorURL": "http://dash",
                "fingerprint": fingerprint(other),
            },
        ],
    }


async def test_a_group_is_resolved_when_all_of_it_is(receiver: WebhookReceiver) -> None:
    notifier = WebhookNotifier(receiver.url)
    await notifier.notify([])
    await notifier.notify([alert("resolved", queue='a "b" \\'), alert("resolved", queue="other")])
    await notifier.notify([alert("resolved", queue='a "b" \\')])
    await notifier.close()
    both, one = receiver.payloads
    assert [payload["status"] for payload in (both, one)] == ["resolved", "resolved"]
    assert (both["groupLabels"], both["groupKey"]) == ({}, "{}:{}")
    assert one["groupKey"] == r'{}:{queue="a \"b\" \\"}'


def test_a_fingerprint_is_the_one_that_others_give() -> None:
    """Both are what Alertmanager 0.25 said. The integration tests ask a running one."""
    labels = {"alertname": "LaneOldestReadyAgeHigh", "cluster": "eü", "queue": "demo", "severity": "warning"}
    assert fingerprint({**labels, "lane": "query"}) == "63c9c50b2fff9b3e"
    assert fingerprint({**labels, "lane": 'präzise "x"'}) == "adf1350683c3698e"


@pytest.mark.parametrize("at", [-1.0, 0.0, 1e12])
async def test_times_beyond_the_calendar_do_no_harm(receiver: WebhookReceiver, at: float) -> None:
    notifier = WebhookNotifier(receiver.url)
    await notifier.notify([alert("resolved", since=at, fired_at=None, ended_at=at)])
    await notifier.close()
    assert re.fullmatch(r"(1970-01-01|9999-12-31)T\d\d:\d\d:\d\d\.000Z", receiver.alerts[0]["startsAt"])


# --- answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_an_answer_of_success_is_one(receiver: WebhookReceiver, status: int) -> None:
    receiver.answers = [status]
    notifier = WebhookNotifier(receiver.url)
    await notifier.notify([alert()])
    await notifier.close()
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("status", "failure", "phrase"),
    [
        (301, NotificationRefused, " Moved Permanently"),
        (400, NotificationRefused, " Bad Request"),
        (401, NotificationRefused, " Unauthorized"),
        (404, NotificationRefused, " Not Found"),
        (408, NotificationError, " Request Timeout"),
        (429, NotificationError, " Too Many Requests"),
        (500, NotificationError, " Internal Server Error"),
        (503, NotificationError, " Service Unavailable"),
        (599, NotificationError, ""),
    ],
)
async def test_any_other_answer_is_a_failure_for_good_or_for_now(
    receiver: WebhookReceiver, status: int, failure: type[Exception], phrase: str
) -> None:
    receiver.answers = [status]
    receiver.headers = {"Location": "http://127.0.0.1:1/"}
    for notifier in (WebhookNotifier(receiver.url), AlertmanagerNotifier(receiver.url)):
        receiver.answers = [status]
        with pytest.raises(NotificationError) as caught:
            await notifier.notify([alert()])
        await notifier.close()
        assert type(caught.value) is failure
        assert str(caught.value) == f"{receiver.url} answered {status}{phrase}"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0.0), ("17", 17.0), ("9" * 400, 100 * 365.25 * 86_400), ("1.5", None), ("soon", None), ("-3", None)],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_the_receiver_may_say_when_to_come_back(
    receiver: WebhookReceiver, status: int, value: str, seconds: float | None
) -> None:
    receiver.answers, receiver.headers = [status], {"Retry-After": value}
    notifier = WebhookNotifier(receiver.url)
    with pytest.raises((NotificationError, RetryAfter)) as caught:
        await notifier.notify([alert()])
    await notifier.close()
    assert getattr(caught.value, "seconds", None) == seconds
    assert str(caught.value).startswith(f"{receiver.url} answered {status} ")


@pytest.mark.parametrize("ahead", [30, -30])
async def test_it_may_say_so_with_a_date_by_its_own_clock(receiver: WebhookReceiver, ahead: float) -> None:
    then = email.utils.formatdate(time.time() + ahead, usegmt=True)
    receiver.answers, receiver.headers = [503], {"Retry-After": then}
    notifier = WebhookNotifier(receiver.url)
    with pytest.raises(RetryAfter) as caught:
        await notifier.notify([alert()])
    await notifier.close()
    assert caught.value.seconds == pytest.approx(max(0, ahead), abs=2)


async def test_who_cannot_be_reached_is_told_with_the_systems_words() -> None:
    port = free_port()
    notifier = WebhookNotifier(f"http://127.0.0.1:{port}/{SECRET}")
    with pytest.raises(NotificationError, match=rf"^http://127\.0\.0\.1:{port}: ConnectError: .*\w"):
        await notifier.notify([alert()])
    await notifier.close()


async def test_a_secure_connection_to_one_that_has_none_fails_with_words(receiver: WebhookReceiver) -> None:
    notifier = WebhookNotifier(receiver.url.replace("http:", "https:"))
    with pytest.raises(NotificationError, match=r"^https://127.0.0.1:\d+: ConnectError: .*SSL"):
        await notifier.notify([alert()])
    await notifier.close()


# --- proxies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
async def test_the_environments_proxy_is_used(
    receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, receiver.url.replace("http://", "http://me:pass@"))
    notifier = WebhookNotifier("http://alerts.invalid/hook")
    await notifier.notify([alert()])
    await notifier.close()
    ((path, headers, _),) = receiver.requests
    assert (path, headers["Host"]) == ("http://alerts.invalid/hook", "alerts.invalid")
    assert headers["Proxy-Authorization"] == "Basic " + base64.b64encode(b"me:pass").decode()


async def test_no_proxy_is_used_for_those_who_are_excepted(
    receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    notifier = WebhookNotifier(receiver.url)
    await notifier.notify([alert()])
    await notifier.close()
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("proxy", [f"socks5://me:{SECRET}@x", f"http://me:{SECRET}@x:none"])
def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(ConfigError, match=r"^proxy: \(not shown\)") as caught:
        WebhookNotifier("http://alerts.invalid/hook")
    assert_no_secret(caught.value)


# --- Alertmanager -----------------------------------------------------------------------------------------------


async def test_alertmanager_gets_labels_annotations_and_times(receiver: WebhookReceiver) -> None:
    clock = VirtualClock(wall_start=AT + 100)
    notifier = AlertmanagerNotifier(
        receiver.url, labels={"cluster": "eu"}, refresh_seconds=30, generator_url="http://dash", clock=clock
    )
    await notifier.notify([])
    await notifier.notify([alert(), alert("resolved", None)])
    await notifier.close()
    ((path, headers, body),) = receiver.requests
    assert (path, headers["Content-Type"]) == ("/api/v2/alerts", "application/json")
    labels = {"cluster": "eu", "alertname": "LaneOldestReadyAgeHigh", "severity": "warning", "queue": "demo"}
    annotations = {"description": "75 s, above 60 s", "runbook_url": "https://runbook#oldest-ready-age"}
    assert json.loads(body) == [
        {
            "labels": {**labels, "lane": "query"},
            "annotations": {**annotations, "summary": "too old in query"},
            "startsAt": "2026-01-01T00:01:00.000Z",
            "endsAt": "2026-01-01T00:03:40.000Z",  # in two minutes, four times thirty seconds
            "generatorURL": "http://dash",
        },
        {
            "labels": labels,
            "annotations": {**annotations, "summary": "too old in None"},
            "startsAt": "2026-01-01T00:01:00.000Z",
            "endsAt": "2026-01-01T00:01:30.500Z",
            "generatorURL": "http://dash",
        },
    ]
    assert notifier.refresh_seconds == 30


@pytest.mark.parametrize(
    ("state", "ends"), [("firing", "2026-01-01T00:04:10.000Z"), ("resolved", "2026-01-01T00:00:10.000Z")]
)
async def test_a_queue_whose_clock_is_ahead_of_alertmanagers_is_understood(
    receiver: WebhookReceiver, state: str, ends: str
) -> None:
    notifier = AlertmanagerNotifier(receiver.url, clock=VirtualClock(wall_start=AT + 10))
    await notifier.notify([alert(state)])
    await notifier.close()
    (sent,) = json.loads(receiver.requests[0][2])
    assert (sent["startsAt"], sent["endsAt"]) == ("2026-01-01T00:00:10.000Z", ends)
    assert "generatorURL" not in sent


@pytest.mark.parametrize(
    ("path", "reached"),
    [
        ("", "/api/v2/alerts"),
        ("/", "/api/v2/alerts"),
        ("/am", "/am/api/v2/alerts"),
        ("/am/", "/am/api/v2/alerts"),
        ("/am/api/v2/alerts", "/am/api/v2/alerts"),
        ("/a%20b?tenant=x%2Fy#part", "/a%20b/api/v2/alerts?tenant=x%2Fy"),
    ],
)
async def test_the_address_may_have_a_prefix(receiver: WebhookReceiver, path: str, reached: str) -> None:
    notifier = AlertmanagerNotifier(receiver.url + path)
    await notifier.notify([alert()])
    await notifier.close()
    assert receiver.requests[0][0] == reached


# --- secrets ----------------------------------------------------------------------------------------------------


def assert_no_secret(error: BaseException) -> None:
    seen: BaseException | None = error
    while seen is not None:
        assert SECRET not in f"{seen} {seen!r} {vars(seen)}"
        seen = seen.__cause__ or seen.__context__


@pytest.mark.parametrize("make", [WebhookNotifier, AlertmanagerNotifier])
@pytest.mark.parametrize("way", ["well", "refused", "failed", "unreachable"])
async def test_an_address_and_headers_are_never_shown(
    receiver: WebhookReceiver, caplog: pytest.LogCaptureFixture, make: type[WebhookNotifier], way: str
) -> None:
    host = receiver.url.removeprefix("http://") if way != "unreachable" else f"127.0.0.1:{free_port()}"
    receiver.answers = {"refused": [403], "failed": [502]}.get(way, [])
    with caplog.at_level(logging.DEBUG):
        notifier = make(f"http://{SECRET}:p%40{SECRET}@{host}/{SECRET}?token={SECRET}", headers={"X-Key": SECRET})
        assert repr(notifier) == f"<{make.__name__} {notifier.name!r} to http://{host}>"
        try:
            await notifier.notify([alert()])
        except NotificationError as error:
            assert way != "well"
            assert_no_secret(error)
        else:
            assert way == "well"
        await notifier.close()
    assert SECRET not in caplog.text
    if way != "unreachable":
        ((path, headers, _),) = receiver.requests
        assert path.startswith(f"/{SECRET}")
        assert path.endswith(f"?token={SECRET}")
        given = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode()
        assert (given, headers["X-Key"]) == (f"{SECRET}:p@{SECRET}", SECRET)


# --- wrong use --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"url": 5}, "url"),
        ({"url": None}, "url"),
        ({"url": SECRET}, "url"),
        ({"url": f"ftp://{SECRET}"}, "url"),
        ({"url": f"http:///{SECRET}"}, "url"),
        ({"url": f"http://[{SECRET}"}, "url"),
        ({"url": f"http://x:{SECRET}/"}, "url"),
        ({"url": f"http://x {SECRET}"}, "url"),
        ({"url": f"http://x:70000/{SECRET}"}, "url"),
        ({"url": f"http://x/\n{SECRET}"}, "url"),
        ({"headers": SECRET}, "headers"),
        ({"headers": {SECRET + ":": "x"}}, "headers"),
        ({"headers": {5: SECRET}}, "headers"),
        ({"headers": {"X-Key": SECRET + "\n"}}, "headers.X-Key"),
        ({"headers": {"X-Key": " " + SECRET}}, "headers.X-Key"),
        ({"headers": {"X-Key": SECRET + "ü"}}, "headers.X-Key"),
        ({"headers": {"X-Key": 5}}, "headers.X-Key"),
        ({"headers": {"content-type": SECRET}}, "headers.content-type"),
        ({"url": f"http://me:{SECRET}@x", "headers": {"authorization": SECRET}}, "headers.Authorization"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": math.inf}, "timeout"),
        ({"name": "\n"}, "name"),
        ({"generator_url": 5}, "generator_url"),
    ],
)
def test_a_wrong_argument_is_named_and_no_secret_shown(options: dict[str, Any], field: str) -> None:
    for kind in (WebhookNotifier, AlertmanagerNotifier):
        with pytest.raises(ConfigError, match=rf"^{re.escape(field)}: ") as caught:
            kind(**{"url": "http://x/", **options})
        assert_no_secret(caught.value)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"labels": "x"}, "labels"),
        ({"labels": {"a-b": "x"}}, "labels"),
        ({"labels": {"": "x"}}, "labels"),
        ({"labels": {"queue": "x"}}, "labels.queue"),
        ({"labels": {"a": 5}}, "labels.a"),
        ({"labels": {"a": ""}}, "labels.a"),
        ({"refresh_seconds": 0}, "refresh_seconds"),
        ({"refresh_seconds": 30, "resolve_after": 30}, "resolve_after"),
        ({"resolve_after": -1}, "resolve_after"),
        ({"clock": 5}, "clock"),
    ],
)
def test_what_only_alertmanager_has_is_checked_too(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{re.escape(field)}: "):
        AlertmanagerNotifier("http://x/", **options)


def test_external_url_is_text() -> None:
    with pytest.raises(ConfigError, match=r"^external_url: "):
        WebhookNotifier("http://x/", external_url=None)  # type: ignore[arg-type]


# --- from a table -----------------------------------------------------------------------------------------------


async def test_a_webhook_is_made_of_a_table(receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_TOKEN", f"Bearer {SECRET}")
    notifier = notifier_from(
        {
            "type": "webhook", "url": f"{receiver.url}/hook", "name": "team", "timeout": 3,
            "headers": {"X-Key": "k"}, "headers_env": {"Authorization": "HOOK_TOKEN"},
            "generator_url": "http://dash", "external_url": "http://app",
        }
    )  # fmt: skip
    assert isinstance(notifier, WebhookNotifier)
    assert notifier.timeout == 3
    await notifier.notify([alert()])
    await notifier.close()
    ((path, headers, _),) = receiver.requests
    assert (path, headers["X-Key"], headers["Authorization"]) == ("/hook", "k", f"Bearer {SECRET}")
    assert receiver.payloads[0]["receiver"] == "team"


async def test_alertmanager_is_made_of_a_table(receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AM", f"{receiver.url}/am")
    notifier = notifier_from(
        {"type": "alertmanager", "url_env": "AM", "labels": {"a": "b"}, "refresh_seconds": 5, "resolve_after": 50}
    )
    assert isinstance(notifier, AlertmanagerNotifier)
    assert (notifier.name, notifier.refresh_seconds) == ("alertmanager", 5)
    await notifier.notify([alert()])
    await notifier.close()
    (sent,) = json.loads(receiver.requests[0][2])
    assert (receiver.requests[0][0], sent["labels"]["a"]) == ("/am/api/v2/alerts", "b")


@pytest.mark.parametrize(
    ("table", "field", "words"),
    [
        (SECRET, "notifiers", "give a table"),
        ({}, "type", "give one of 'webhook', 'alertmanager'"),
        ({"type": "email"}, "type", "give one of"),
        ({"type": ["webhook"]}, "type", "give one of"),
        ({"type": "webhook"}, "url", "either url or url_env"),
        ({"type": "webhook", "url": "http://x", "url_env": SECRET}, "url", "either url or url_env"),
        ({"type": "webhook", "urls": f"http://{SECRET}"}, "urls", "did you mean 'url'"),
        ({"type": "webhook", "header": {"a": SECRET}}, "header", "did you mean 'headers'"),
        ({"type": "webhook", "url": "http://x", "refresh_seconds": 3}, "refresh_seconds", "unknown key"),
        ({"type": "webhook", "url_env": SECRET}, "url_env", "variable that is set"),
        ({"type": "webhook", "url_env": 5}, "url_env", "variable that is set"),
        ({"type": "webhook", "url_env": "EMPTY"}, "url_env", "variable that is set"),
        ({"type": "webhook", "url": "http://x", "headers": 5, "headers_env": {}}, "headers", "give a table"),
        ({"type": "webhook", "url": "http://x", "headers_env": SECRET}, "headers_env", "give a table"),
        ({"type": "webhook", "url": "http://x", "headers_env": {"A": SECRET}}, "headers_env.A", "variable that is set"),
        (
            {"type": "webhook", "url": "http://x", "headers": {"A": SECRET}, "headers_env": {"a": SECRET}},
            "headers_env.a",
            "it stands in headers, too",
        ),
        ({"type": "alertmanager", "url": f"ftp://{SECRET}"}, "url", "give an http or https address"),
    ],
)
def test_a_wrong_table_is_refused_by_name_and_no_secret_shown(
    monkeypatch: pytest.MonkeyPatch, table: Any, field: str, words: str
) -> None:
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(ConfigError, match=rf"^{re.escape(field)}: .*{re.escape(words)}") as caught:
        notifier_from(table)
    assert_no_secret(caught.value)
