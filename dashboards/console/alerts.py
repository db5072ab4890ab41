"""Which alerts fire: in the programs' monitors, and in Prometheus where it has the rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dashboards.console.language import about, asked, literally, markup, part, plain, string
from dashboards.levels import Watched
from dashboards.panels import UNITS
from dashboards.promql import ALERT, alert_states
from lane_obs.alerts import MEASURES, Rule
from lane_obs.alerts.prometheus import TARGET_DOWN
from lane_obs.metrics.catalogue import ALERT_STATE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lane_obs.alerts import AlertSpec

MOST: Final = 50
"""So many alerts are shown, the critical ones first."""

# All alerts that the page is about: 2 for a critical one, 1 for a warning.
_CRITICAL, _WARNING = (f'ALERTS{{alertstate="firing", severity="{one}", {ALERT}}}' for one in ("critical", "warning"))
_MONITOR: Final = f'label_replace({alert_states()} > 0, "alertname", "$1", "alert", "(.+)")'
_FIRING: Final = f"max by (alertname, queue, lane) ({_CRITICAL} * 2 or {_WARNING} or {_MONITOR})"
_PENDING: Final = f'count by (alertname, lane) (ALERTS{{alertstate="pending", {ALERT}}})'

# One of them, by its name, queue and lane.
_THIS: Final = 'queue="%[2]s", lane="%[3]s"'
_NOW: Final = f'ALERTS{{alertstate="firing", alertname="%[1]s", {_THIS}}}'
_IN_MONITOR: Final = f'max ({ALERT_STATE.name}{{alert="%[1]s", {_THIS}}} > 0)'
_WORST: Final = f'ALERTS{{alertstate="firing", alertname="%[1]s", severity="critical", {_THIS}}}'
_IN_PROMETHEUS: Final = f"max ({_WORST} * 2 or {_NOW})"
_SINCE: Final = f'time() - min (ALERTS_FOR_STATE{{alertname="%[1]s", {_THIS}}} and ignoring (alertstate) {_NOW})'


def section(specs: Sequence[AlertSpec]) -> str:
    """The alerts as a table. The page's `$queue` and `$lane` narrow them; those of a queue are always there."""
    records = [signal.record for spec in specs for signal in spec.signals]
    return part(
        "alerts.html",
        monitor=asked(f"count ({alert_states()})"),
        rules=string(f"count ({records[0]})" if records else "vector(1) < 0"),
        count=asked(f"count ({_FIRING})"),
        firing=asked(f"topk({MOST}, {_FIRING})"),
        most=str(MOST),
        name_plain=plain(".Labels.alertname"),
        queue_plain=plain(".Labels.queue"),
        lane_plain=plain(".Labels.lane"),
        queue=literally(".Labels.queue"),
        lane=literally(".Labels.lane"),
        told=_told(specs),
        in_monitor=string(_IN_MONITOR),
        in_prometheus=string(_IN_PROMETHEUS),
        since=string(_SINCE),
        pending=asked(_PENDING),
    )


def _told(specs: Sequence[AlertSpec]) -> str:
    """What is known of an alert by its name: what it means, its value, its level."""
    where = part("where.html")
    known = [
        f'if eq .Labels.alertname "{name}" }}}}{_cells(watched, where)}{{{{ else ' for name, watched in _by_name(specs)
    ]
    unknown = f"}}}}<td>{{{{ .Labels.alertname }}}}</td>{where}<td></td><td></td>{{{{ end }}}}"
    return "{{ " + "".join(known).rstrip() + unknown


def _cells(watched: Watched, where: str) -> str:
    spec = watched.shown
    values = watched.values(spec.per) if spec.signals else ["vector(1) < 0"]
    return part(
        "alert.html",
        runbook=spec.runbook,
        alert=spec.alert,
        what=markup(spec.what),
        where=where,
        value=asked(f"max ({' or '.join(values)})"),
        unit=UNITS[spec.unit],
        level="".join(map(_level, watched.specs)),
    )


def _level(spec: AlertSpec) -> str:
    condition = f'and (eq $severity "{spec.severity}") {about(spec, "$name")}'
    until = f" <small>until {spec.show(spec.clear)}</small>" if spec.clear < spec.level else ""
    return f"{{{{ if {condition} }}}}above {spec.show(spec.level)}{until}{{{{ end }}}}"


def _by_name(specs: Sequence[AlertSpec]) -> Iterator[tuple[str, Watched]]:
    """Every alert that there can be; those of the rules with their levels."""
    for name in dict.fromkeys(spec.alert for spec in specs):
        mine = tuple(sorted((spec for spec in specs if spec.alert == name), key=lambda spec: spec.level))
        yield name, Watched(mine[0].rule, mine, mine[0])
    taken = {spec.alert for spec in specs}
    for measure in MEASURES.values():
        for per in measure.pers:
            (spec,) = Rule(measure=measure.name, per=per, warning=0).specs()
            if spec.alert not in taken:
                yield spec.alert, Watched(spec.rule, (), spec)
    yield TARGET_DOWN.alert, Watched(TARGET_DOWN.rule, (), TARGET_DOWN)
