"""Takes the picture of docs/consoles.md: the demo while its lane stalls, as a real Prometheus shows it.

python -m tests.integration.console_picture            # docs/images/console.png
python -m tests.integration.console_picture FILE
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.integration.services.browser import Browser, read_png, write_png
from tests.integration.services.process import free_port, poll
from tests.integration.services.prometheus import Prometheus

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "images" / "console.png"
RULES = ROOT / "dashboards" / "demo-alerts.yml"
PAGES = ROOT / "deploy" / "prometheus" / "consoles"
MOMENT = 'ALERTS{alertname="LaneStalled", alertstate="firing"}'


def take(directory: Path) -> bytes:
    """The picture, with few colours."""
    port, browser = free_port(), Browser(directory / "browser")
    targets = {"lane-obs": f"127.0.0.1:{port}"}
    with Prometheus(
        directory / "data", targets, interval_seconds=0.5, rule_files=[RULES], consoles=PAGES
    ) as prometheus:
        prometheus.wait_for_targets()
        options = ["demo", "--metrics-port", str(port), "--no-screen"]
        with subprocess.Popen([sys.executable, "-m", "lane_obs", *options], stdout=subprocess.DEVNULL) as demo:
            try:
                poll(lambda: prometheus.query(MOMENT) or None, 60, lambda: "the alert that the lane stalls")
                seen = browser.open(f"{prometheus.url}/consoles/lane-obs.html")
            finally:
                demo.terminate()
    return write_png(read_png(seen.picture))


def main(arguments: list[str]) -> None:
    path = Path(arguments[0]) if arguments else PICTURE
    with tempfile.TemporaryDirectory() as directory:
        picture = take(Path(directory))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture)
    print(f"{path}: {len(picture)} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
