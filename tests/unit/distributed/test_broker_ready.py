"""A process whose link to its broker is lost says that it is not ready."""

from __future__ import annotations

from typing import Any

import httpx

from lane_obs import LaneConfig
from lane_obs.distributed.view import BrokerHealth
from lane_obs.http import create_app
from tests.unit.distributed.known import KnownBroker, KnownQueue


async def test_a_process_is_not_ready_while_its_broker_is_away() -> None:
    manager: Any = KnownQueue({"a": LaneConfig(0, 1)})
    manager.broker = broker = KnownBroker()
    transport = httpx.ASGITransport(app=create_app(manager))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http, manager:
        assert (await http.get("/readyz")).status_code == 200
        broker.now = BrokerHealth(ready=False, error="refused")
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "not_ready", "reason": "broker_down"})
        broker.now = BrokerHealth(ready=True, failures=1)
        assert (await http.get("/readyz")).status_code == 200
