"""The files of the worker in deploy/ fit their schemas, each other, and the package."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer.main
from compose_spec import PyCompose

from lane_obs.cli import app as command_line
from lane_obs.cli.broker import VARIABLE
from lane_obs.metrics import CATALOGUE
from lane_obs.worker.child import DRAIN_SECONDS
from lane_obs.worker.slot import KILL_SECONDS
from tests.architecture.deployed import DEPLOY, check_object, compose, container, objects, read

WORKER = DEPLOY / "worker"
KUBERNETES = WORKER / "kubernetes"
SERVICES: dict[str, Any] = read(WORKER / "compose.yaml")["services"]
OBJECTS: dict[str, dict[str, Any]] = {
    thing["kind"]: thing for thing in map(read, sorted(KUBERNETES.glob("*.yaml"))) if thing["kind"] != "Kustomization"
}
(CONTAINER,) = OBJECTS["Deployment"]["spec"]["template"]["spec"]["containers"]
NAME = "lane-obs-worker"


def options(words: list[str]) -> dict[str, Any]:
    """What the command line makes of a call."""
    name, *arguments = words
    command = typer.main.get_command(command_line).commands[name]
    return command.make_context(name, list(arguments)).params


# --- compose ----------------------------------------------------------------------------------------------------


def test_the_compose_file_is_one() -> None:
    text = (WORKER / "compose.yaml").read_text("utf-8")
    assert sorted(PyCompose.from_yaml(text).service_names()) == ["broker", "producer", "worker"]
    assert "$" not in text


def test_its_worker_is_called_as_it_can_be() -> None:
    given = options(SERVICES["worker"]["command"])
    assert (given["app"], given["processes"], given["host"]) == ("shop:app", 2, "0.0.0.0")
    assert SERVICES["worker"]["ports"] == [f"127.0.0.1:{given['metrics_port']}:{given['metrics_port']}"]


@pytest.mark.parametrize("name", ["worker", "producer"])
def test_both_have_the_app_and_the_broker(name: str) -> None:
    service = SERVICES[name]
    assert service["environment"] == {VARIABLE: "redis://broker:6379"}
    assert service["volumes"] == [f"./shop.py:{service['working_dir']}/shop.py:ro"]
    assert (WORKER / "shop.py").is_file()
    assert service["image"] == compose()["services"]["app"]["image"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


def test_the_broker_keeps_what_it_took_and_evicts_nothing() -> None:
    words = SERVICES["broker"]["command"]
    given = dict(zip(words[1::2], words[2::2], strict=True))
    assert given["--appendonly"] == "yes"
    assert given["--maxmemory-policy"] == "noeviction"
    assert SERVICES["broker"]["ports"] == ["127.0.0.1:6379:6379"]


def test_the_worker_may_finish_its_drain() -> None:
    grace = float(SERVICES["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace > DRAIN_SECONDS + KILL_SECONDS


# --- Kubernetes -------------------------------------------------------------------------------------------------


def test_all_of_them_are_applied() -> None:
    listed = set(read(KUBERNETES / "kustomization.yaml")["resources"])
    assert {path.name for path in KUBERNETES.iterdir()} == {"kustomization.yaml", *listed}
    assert len(OBJECTS) == len(listed)


@pytest.mark.parametrize("kind", sorted(OBJECTS))
def test_each_fits_the_schema_of_its_kind(kind: str) -> None:
    check_object(OBJECTS[kind])


def test_everything_points_at_the_same_pods() -> None:
    spec = OBJECTS["Deployment"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert labels == {"app.kubernetes.io/name": NAME} != objects()["Service"]["spec"]["selector"]
    assert spec["selector"]["matchLabels"] == labels
    assert OBJECTS["Service"]["spec"]["selector"] == labels
    assert OBJECTS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert OBJECTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert OBJECTS["ServiceMonitor"]["spec"]["selector"]["matchLabels"] == labels
    assert OBJECTS["ScaledObject"]["spec"]["scaleTargetRef"] == {"name": NAME}
    assert {thing["metadata"]["name"] for thing in OBJECTS.values()} == {NAME}


def test_everything_uses_the_same_port_and_job() -> None:
    (port,) = CONTAINER["ports"]
    assert options(CONTAINER["args"])["metrics_port"] == port["containerPort"]
    (service,) = OBJECTS["Service"]["spec"]["ports"]
    assert (service["port"], service["targetPort"]) == (port["containerPort"], port["name"])
    (endpoint,) = OBJECTS["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["port"] == service["name"]
    job = OBJECTS["Service"]["metadata"]["labels"][OBJECTS["ServiceMonitor"]["spec"]["jobLabel"]]
    assert job == objects()["Service"]["metadata"]["name"]
    pages = {name: CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: page["path"] for name, page in pages.items()} == {
        "startup": "/readyz", "liveness": "/livez", "readiness": "/readyz"
    }  # fmt: skip
    assert {page["port"] for page in pages.values()} == {port["name"]}


def test_the_grace_period_is_longer_than_what_has_to_happen_in_it() -> None:
    grace = OBJECTS["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= options(CONTAINER["args"])["drain_timeout"] + KILL_SECONDS + 10


def test_pods_are_shut_in_as_those_of_the_demo_are() -> None:
    pod, other = (made["Deployment"]["spec"]["template"]["spec"] for made in (OBJECTS, objects()))
    for name in ("automountServiceAccountToken", "enableServiceLinks", "securityContext", "volumes"):
        assert pod[name] == other[name]
    assert CONTAINER["securityContext"] == container()["securityContext"]
    assert CONTAINER["image"] == container()["image"]


def test_the_url_is_a_secret() -> None:
    (variable,) = CONTAINER["env"]
    assert variable["name"] == VARIABLE
    reference = variable["valueFrom"]["secretKeyRef"]
    text = (KUBERNETES / "kustomization.yaml").read_text("utf-8")
    assert f"create secret generic {reference['name']} --from-literal={reference['key']}=redis://" in text


def test_scaling_asks_for_metrics_of_the_whole_queue_by_labels_that_they_have() -> None:
    known = {metric.name: {"queue", "job", *metric.labels} for metric in CATALOGUE}
    (trigger,) = OBJECTS["ScaledObject"]["spec"]["triggers"]
    found = re.findall(r"(lane_\w+)\{([^}]*)\}", trigger["metadata"]["query"])
    assert len(found) == 5
    for name, matchers in found:
        assert name.startswith("lane_cluster_")
        assert set(re.findall(r"(\w+)=", matchers)) <= known[name]
        assert 'job="lane-obs"' in matchers
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert trigger["metricType"] == "AverageValue"
    assert float(trigger["metadata"]["threshold"]) == 0.75 * options(CONTAINER["args"])["concurrency"]
    assert OBJECTS["ScaledObject"]["spec"]["minReplicaCount"] >= 1
    assert "replicas" not in OBJECTS["Deployment"]["spec"]
