"""Every metric: name, type, labels and help, in one place. Exporters and documents are made from it."""

from __future__ import annotations

import dataclasses
from typing import Final, Literal

BUCKETS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
)  # fmt: skip
"""Upper bounds in seconds of the histograms of waiting, running and both; one above all of them is always added."""

OUTCOMES: Final = ("ok", "error", "timeout", "cancelled", "expired")
"""How a command or an attempt can end. A command dropped from a full lane ends with `error`."""

RETRY_REASONS: Final = ("error", "timeout")
"""Why another attempt follows."""

REJECT_REASONS: Final = ("full", "shutting_down", "storage")
"""Why a lane refuses a submit."""

UNKNOWN_LANE: Final = "unknown"
"""The lane of all submits to lanes that do not exist: whatever a submitter invents must not become a series."""

UNKNOWN_REASONS: Final = ("unknown_lane", "shutting_down", "removed")
"""Why such a submit is refused. One to a lane that is being removed is among them: the lane's own series go with it."""

PASS_REASONS: Final = ("lane", "command_type", "arguments", "options")
"""What a process may not know of a command that it claimed."""

STATES: Final = ("ready", "delayed", "backoff")
"""The states of commands that wait."""

ROLES: Final = ("worker", "submitter")
"""What a member of a broker is: one that runs commands, or one that only submits them."""

BLOCKED_BY: Final = ("slots", "priority", "pause", "rate_limit", "partition")
"""What may keep ready work from starting; the scheduler's own lateness has a metric of its own."""

DROP_REASONS: Final = ("error", "disabled", "full", "closed")
"""Why a sink may lose events; sinks may have more reasons of their own."""

NOTIFIED: Final = ("sent", "retried", "failed", "dropped")
"""What becomes of the notification of an alert: `retried` may happen several times, the others end it."""

OTHER_TYPE: Final = "other"
"""The type of all commands whose own has no series."""

LABELS: Final = {
    "queue": "The name given to the exporter, `default` unless it is told another.",
    "lane": "The lane. `unknown` stands for all lanes that do not exist or are being removed; empty is an alert "
    "about the whole queue.",
    "outcome": "`ok`, `error` (raised, or dropped from a full lane), `timeout`, `cancelled`, `expired` (its deadline "
    "passed). Refused submits and dead letters are counted apart. Of a notification: `sent`, `retried`, `failed`, "
    "`dropped`.",
    "reason": "Of a retry: `error`, `timeout`. Of a refusal: `full`, `shutting_down`, `unknown_lane`, `removed`, "
    "`storage` (it could not be saved). Of a kept command: `unknown_lane`, `unregistered`. Of a sink's "
    "loss: `error` (it raised), `disabled` (it was cut off), `full`, `closed`, or a reason of its own.",
    "state": "`ready`, `delayed`, `backoff`; of commands of a broker that ended, the state they ended in.",
    "cause": "`slots` (the lane or the queue is full), `priority` (a more important lane goes first), `pause`, "
    "`rate_limit`, `partition` (all ready commands are behind others of their partitions).",
    "partition": "The partition; at most ten a lane, those with most ready commands or the longest wait.",
    "command_type": "Opt-in and capped: the first types seen, and `other` for all that came later.",
    "priority": "The lane's priority in force; 0 goes first.",
    "alert": "The alert's name, as in the Prometheus rules.",
    "notifier": "The notifier's name.",
    "role": "`worker` (it runs commands), `submitter` (it only submits them).",
    "worker": "The id of the process at its broker, `host:pid:number`; log lines and spans have it, too.",
    "sink": "The sink's class; several of one class are added up.",
    "version": "The version of the package.",
}
"""What each label may be."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric.

    Args:
        name: its whole name, unit and `_total` included.
        kind: how its values behave.
        help: what it tells.
        labels: names of its labels after `queue`, which all metrics have.
        opt_in: names of labels that follow where they are asked for.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ("lane",)
    opt_in: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """`seconds`, or nothing."""
        return "seconds" if self.name.removesuffix("_total").endswith("_seconds") else ""


SUBMITTED: Final = Metric("lane_commands_submitted_total", "counter", "Commands taken in, requeued ones again.")
REJECTED: Final = Metric("lane_commands_rejected_total", "counter", "Submits refused.", ("lane", "reason"))
FINISHED: Final = Metric(
    "lane_commands_finished_total", "counter", "Commands ended, once each, by final outcome.", ("lane", "outcome")
)
ATTEMPTS: Final = Metric("lane_command_attempts_total", "counter", "Attempts ended, by outcome.", ("lane", "outcome"))
RETRIES: Final = Metric(
    "lane_command_retries_total", "counter", "Attempts that failed and are followed by another.", ("lane", "reason")
)
# Not lane_dead_letters_total: in OpenMetrics a counter's family has no `_total` and would clash with the gauge.
DEAD_LETTERED: Final = Metric("lane_commands_dead_lettered_total", "counter", "Commands that became dead letters.")
EVICTED: Final = Metric("lane_dead_letters_evicted_total", "counter", "Dead letters that gave way to newer ones.")
REQUEUED: Final = Metric("lane_dead_letters_requeued_total", "counter", "Dead letters that went back into their lane.")
DEAD_LETTERS: Final = Metric("lane_dead_letters", "gauge", "Dead letters kept.")
RECOVERED: Final = Metric(
    "lane_commands_recovered_total", "counter", "Commands of an earlier process that are back in their lane."
)
KEPT: Final = Metric(
    "lane_commands_kept",
    "gauge",
    "Stored commands that cannot run here, by why: their lane is not there, or their type is not registered.",
    ("reason",),
)
STORAGE_FAILED: Final = Metric("lane_storage_failed", "gauge", "1 while the storage cannot commit, else 0.", ())
STORAGE_COMMANDS: Final = Metric("lane_storage_commands", "gauge", "Commands stored.", ())
STORAGE_PENDING: Final = Metric(
    "lane_storage_pending_changes", "gauge", "Changes that wait to be committed, or to be tried again.", ()
)
STORAGE_FAILURES: Final = Metric("lane_storage_failures_total", "counter", "Transactions that failed.", ())
STORAGE_DROPPED: Final = Metric("lane_storage_dropped_total", "counter", "Changes that were lost: too many waited.", ())
STORAGE_COMMIT: Final = Metric("lane_storage_commit_seconds", "histogram", "How long transactions took.", ())
STORAGE_BYTES: Final = Metric("lane_storage_file_bytes", "gauge", "Size of the storage's files.", ())
DEPTH: Final = Metric("lane_queue_depth", "gauge", "Commands that wait, by state.", ("lane", "state"))
ACTIVE: Final = Metric("lane_active_commands", "gauge", "Commands that run.")
STUCK: Final = Metric(
    "lane_stuck_commands", "gauge", "Running commands that ignore their cancellation; part of the active ones."
)
LIMIT: Final = Metric("lane_concurrency_limit", "gauge", "Most commands that may run at once.")
RESERVED: Final = Metric("lane_concurrency_reserved", "gauge", "Slots kept free for the lane under a queue-wide limit.")
OLDEST_READY: Final = Metric(
    "lane_oldest_ready_age_seconds",
    "gauge",
    "How long the longest-ready command has been ready, delays and back-offs left out; 0 when none is.",
)
OLDEST_ACTIVE: Final = Metric(
    "lane_oldest_active_age_seconds", "gauge", "How long the longest-running attempt has been running; 0 when none is."
)
LAST_FINISH: Final = Metric(
    "lane_last_finish_timestamp_seconds", "gauge", "Unix time at which a command last ended; 0 when none has."
)
QUEUE_WAIT: Final = Metric(
    "lane_command_queue_wait_seconds", "histogram", "From ready to the first start; delays and back-offs left out."
)
DURATION: Final = Metric(
    "lane_command_duration_seconds", "histogram", "Run time of each attempt.", opt_in=("command_type",)
)
END_TO_END: Final = Metric("lane_command_end_to_end_seconds", "histogram", "From submit to the end of each command.")
DISPATCH_DELAY: Final = Metric(
    "lane_dispatch_delay_seconds",
    "histogram",
    "The part of each wait before a first start that only the scheduler is to blame for.",
    (),
)
BUSY: Final = Metric("lane_busy_seconds_total", "counter", "Run time of all ended attempts; its rate is slots in use.")
BLOCKED: Final = Metric(
    "lane_blocked_seconds_total",
    "counter",
    "Time in which the lane had ready work and could not start it, by what blocked it.",
    ("lane", "cause"),
)
BOOSTED: Final = Metric(
    "lane_commands_boosted_total", "counter", "Times that a waiting command's priority rose, by deadline or age."
)
RATE_LEFT: Final = Metric(
    "lane_rate_limit_left", "gauge", "What the tightest rate limit of the lane would let through now."
)
PARTITIONS: Final = Metric("lane_partitions", "gauge", "Partitions with live commands.")
PARTITION_DEPTH: Final = Metric(
    "lane_partition_depth",
    "gauge",
    "Ready commands of the largest partitions; none where a lane has more than 1,000.",
    ("lane", "partition"),
)
PARTITION_AGE: Final = Metric(
    "lane_partition_oldest_ready_age_seconds",
    "gauge",
    "How long the next command of a partition has been ready; none where a lane has more than 1,000.",
    ("lane", "partition"),
)
LOOP_LAG: Final = Metric(
    "lane_event_loop_lag_seconds", "histogram", "How late the watchdog's heartbeats ran; empty without one.", ()
)
INFO: Final = Metric("lane_info", "gauge", "Always 1; the priority in force is a label.", ("lane", "priority"))
ALERT_STATE: Final = Metric(
    "lane_alert_state", "gauge", "0 while all is well, 1 while a warning fires, 2 while critical.", ("alert", "lane")
)
NOTIFICATIONS: Final = Metric(
    "lane_alert_notifications_total",
    "counter",
    "Notifications of alerts, by what became of them.",
    ("notifier", "outcome"),
)
MONITOR_TICK: Final = Metric("lane_monitor_tick_seconds", "histogram", "How long the monitor takes for one look.", ())
BUILD_INFO: Final = Metric("lane_build_info", "gauge", "Always 1; the version is a label.", ("version",))
SINK_EVENTS: Final = Metric("lane_sink_events_total", "counter", "Events a sink took.", ("sink",))
SINK_BATCHES: Final = Metric("lane_sink_batches_total", "counter", "Batches they came in.", ("sink",))
SINK_DROPPED: Final = Metric("lane_sink_dropped_total", "counter", "Events a sink lost.", ("sink", "reason"))
SINK_ERRORS: Final = Metric("lane_sink_errors_total", "counter", "Batches at which a sink failed.", ("sink",))
SINK_DISABLED: Final = Metric("lane_sink_disabled", "gauge", "Sinks of this name that were cut off.", ("sink",))
SINK_DEPTH: Final = Metric("lane_sink_queue_depth", "gauge", "Events that wait in a sink's buffer.", ("sink",))
SINK_FLUSH: Final = Metric("lane_sink_flush_seconds", "histogram", "How long a sink takes for a batch.", ("sink",))
SINK_LAG: Final = Metric(
    "lane_sink_lag_seconds",
    "histogram",
    "From the oldest event of each batch until the sink was done with the batch.",
    ("sink",),
)

BROKER_DOWN: Final = Metric("lane_broker_down", "gauge", "1 while the link to the broker is lost, else 0.", ())
BROKER_FAILURES: Final = Metric("lane_broker_failures_total", "counter", "Times that the link was lost.", ())
BROKER_TURN: Final = Metric(
    "lane_broker_turn_seconds",
    "histogram",
    "How long exchanges with the broker took: ends handed in, work claimed.",
    (),
)
BROKER_LEADS: Final = Metric(
    "lane_broker_leads", "gauge", "1 in the one process that exports the `lane_cluster_` metrics, else 0.", ()
)
WORKER_INFO: Final = Metric("lane_worker_info", "gauge", "Always 1; the process's id is a label.", ("worker",))
RETURNED: Final = Metric(
    "lane_commands_returned_total",
    "counter",
    "Running commands that are ready again, as their lease was lost; each is told to one process, not its own.",
)
LEASES_LOST: Final = Metric(
    "lane_leases_lost_total", "counter", "Leases that this process lost on commands that it ran."
)
STALE: Final = Metric(
    "lane_commands_stale_total", "counter", "Ends of attempts that the broker refused, as the lease was lost before."
)
PASSED_ON: Final = Metric(
    "lane_commands_passed_on_total", "counter", "Commands left to others, by what is unknown here.", ("reason",)
)
CLUSTER_DEPTH: Final = Metric(
    "lane_cluster_queue_depth", "gauge", "Commands that wait at the broker, by state.", ("lane", "state")
)
CLUSTER_ACTIVE: Final = Metric("lane_cluster_active_commands", "gauge", "Commands that run, in all processes.")
CLUSTER_OLDEST: Final = Metric(
    "lane_cluster_oldest_ready_age_seconds",
    "gauge",
    "How long the longest-ready command has been ready at the broker; 0 when none is.",
)
CLUSTER_LIMIT: Final = Metric(
    "lane_cluster_concurrency_limit", "gauge", "Most commands that may run at once, in all processes."
)
CLUSTER_PAUSED: Final = Metric("lane_cluster_paused", "gauge", "1 while the lane is paused, else 0.")
CLUSTER_LETTERS: Final = Metric("lane_cluster_dead_letters", "gauge", "Dead letters that the broker keeps.")
CLUSTER_MEMBERS: Final = Metric(
    "lane_cluster_members", "gauge", "Processes that use the broker, by what they do.", ("role",)
)
CLUSTER_SLOTS: Final = Metric(
    "lane_cluster_worker_slots", "gauge", "Commands that all processes together would run at once.", ()
)
CLUSTER_SUBMITTED: Final = Metric(
    "lane_cluster_commands_submitted_total", "counter", "Commands that the broker took in.", ()
)
CLUSTER_ENDED: Final = Metric(
    "lane_cluster_commands_ended_total", "counter", "Commands that ended, by final state.", ("state",)
)
CLUSTER_RETURNED: Final = Metric(
    "lane_cluster_commands_returned_total", "counter", "Leases lost that made a command ready again.", ()
)
CLUSTER_EVICTED: Final = Metric(
    "lane_cluster_dead_letters_evicted_total", "counter", "The broker's dead letters that gave way to newer ones.", ()
)

STORED: Final = (
    RECOVERED, KEPT, STORAGE_FAILED, STORAGE_COMMANDS, STORAGE_PENDING, STORAGE_FAILURES, STORAGE_DROPPED,
    STORAGE_COMMIT, STORAGE_BYTES,
)  # fmt: skip
"""What there is to see of a queue with a storage only."""

BROKERED: Final = (
    BROKER_DOWN, BROKER_FAILURES, BROKER_TURN, BROKER_LEADS, WORKER_INFO, RETURNED, LEASES_LOST, STALE, PASSED_ON,
)  # fmt: skip
"""What there is to see of a queue with a broker only."""

CLUSTER: Final = (
    CLUSTER_DEPTH, CLUSTER_ACTIVE, CLUSTER_OLDEST, CLUSTER_LIMIT, CLUSTER_PAUSED, CLUSTER_LETTERS, CLUSTER_MEMBERS,
    CLUSTER_SLOTS, CLUSTER_SUBMITTED, CLUSTER_ENDED, CLUSTER_RETURNED, CLUSTER_EVICTED,
)  # fmt: skip
"""What is about a whole queue of many processes: one of them exports it."""

CATALOGUE: Final = (
    SUBMITTED, REJECTED, FINISHED, ATTEMPTS, RETRIES, DEAD_LETTERED, EVICTED, REQUEUED, DEAD_LETTERS, DEPTH, ACTIVE,
    STUCK, LIMIT, RESERVED, OLDEST_READY, OLDEST_ACTIVE, LAST_FINISH, QUEUE_WAIT, DURATION, END_TO_END,
    DISPATCH_DELAY, BUSY, BLOCKED, BOOSTED, RATE_LEFT, PARTITIONS, PARTITION_DEPTH, PARTITION_AGE, LOOP_LAG, INFO,
    ALERT_STATE, NOTIFICATIONS, MONITOR_TICK, BUILD_INFO, SINK_EVENTS, SINK_BATCHES, SINK_DROPPED, SINK_ERRORS,
    SINK_DISABLED, SINK_DEPTH, SINK_FLUSH, SINK_LAG, *STORED, *BROKERED, *CLUSTER,
)  # fmt: skip
"""All metrics, in the order in which they are shown."""
