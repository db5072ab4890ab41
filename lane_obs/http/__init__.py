"""HTTP: an app with `/metrics`, `/livez`, `/readyz` and `/stats`, and a server of its own to run it."""

from lane_obs.http.app import create_app
from lane_obs.http.heartbeat import Heartbeat, Pulse
from lane_obs.http.server import MetricsServer

__all__ = ["Heartbeat", "MetricsServer", "Pulse", "create_app"]
