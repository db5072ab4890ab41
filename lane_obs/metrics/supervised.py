"""What a supervisor shows of its processes, beside their own metrics. They have no label `queue`."""

from __future__ import annotations

from typing import Final

from lane_obs.metrics.catalogue import Metric

PROCESS: Final = "process"
"""The label that a supervisor adds to each of its processes' series: the number of the process's place, from 0."""

WORKER_UP: Final = Metric("lane_worker_up", "gauge", "1 while the process has its queue started, else 0.", (PROCESS,))
WORKER_RESTARTS: Final = Metric(
    "lane_worker_restarts_total",
    "counter",
    "Processes that followed another, by why: it `died`, or was `rolled` (SIGHUP).",
    (PROCESS, "reason"),
)
WORKER_SCRAPE_FAILURES: Final = Metric(
    "lane_worker_scrape_failures_total",
    "counter",
    "Scrapes to which a process gave no answer; of its series that scrape has the counters only.",
    (PROCESS,),
)

SUPERVISED: Final = (WORKER_UP, WORKER_RESTARTS, WORKER_SCRAPE_FAILURES)
"""All of them, in the order in which they are shown."""
