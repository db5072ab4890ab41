"""The objects for Kubernetes fit the schemas of their kinds, and each other. There is no cluster here to apply them."""

from __future__ import annotations

import copy
import inspect
import json
import re
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from deploy import generate
from lane_obs import QueueManager
from lane_obs.http import MetricsServer, create_app
from lane_obs.metrics import CATALOGUE
from tests.architecture.deployed import (
    DASHBOARDS,
    KUBERNETES,
    ROOT,
    check_object,
    container,
    dockerfile,
    instruction,
    load,
    objects,
    read,
)

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = [
    "Deployment", "NetworkPolicy", "PodDisruptionBudget", "PrometheusRule", "ScaledObject", "Service", "ServiceMonitor",
]  # fmt: skip
METRICS_PORT = inspect.signature(MetricsServer).parameters["port"].default
# What `kubectl apply` may write into an object's annotations, where it keeps what was applied last.
MOST_BYTES = 262_144


def test_all_of_them_are_applied() -> None:
    assert sorted(objects()) == KINDS
    listed = set(read(KUBERNETES / "kustomization.yaml")["resources"])
    assert {path.name for path in KUBERNETES.iterdir()} == {"kustomization.yaml", *listed - {"../../dashboards"}}


@pytest.mark.parametrize("kind", KINDS)
def test_each_fits_the_schema_of_its_kind(kind: str) -> None:
    check_object(objects()[kind])


def misspell(thing: dict[str, Any]) -> None:
    thing["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {"httpGet": {"path": "/", "port": 1}}


def give_text_for_a_number(thing: dict[str, Any]) -> None:
    thing["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = "60"


def leave_out_what_is_needed(thing: dict[str, Any]) -> None:
    del thing["spec"]["selector"]


@pytest.mark.parametrize("spoil", [misspell, give_text_for_a_number, leave_out_what_is_needed])
def test_the_check_finds_what_does_not_fit(spoil: Callable[[dict[str, Any]], None]) -> None:
    thing = copy.deepcopy(objects()["Deployment"])
    spoil(thing)
    with pytest.raises(ValueError, match=r"Deployment"):
        check_object(thing)


def test_the_check_finds_what_custom_resources_do_not_know() -> None:
    for kind, change in {"ServiceMonitor": {"endpoint": []}, "ScaledObject": {"minReplicas": 1}}.items():
        thing = copy.deepcopy(objects()[kind])
        thing["spec"] |= change
        with pytest.raises(ValueError, match="not in the schema"):
            check_object(thing)


# --- one app ----------------------------------------------------------------------------------------------------


def test_everything_points_at_the_same_pods() -> None:
    spec = objects()["Deployment"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels
    (spread,) = spec["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == labels
    assert objects()["Service"]["spec"]["selector"] == labels
    assert objects()["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert objects()["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert objects()["ServiceMonitor"]["spec"]["selector"]["matchLabels"] == objects()["Service"]["metadata"]["labels"]
    assert objects()["ScaledObject"]["spec"]["scaleTargetRef"] == {"name": objects()["Deployment"]["metadata"]["name"]}


def test_everything_uses_the_same_port() -> None:
    (port,) = container()["ports"]
    assert port["containerPort"] == METRICS_PORT
    (service,) = objects()["Service"]["spec"]["ports"]
    assert (service["port"], service["targetPort"]) == (METRICS_PORT, port["name"])
    (endpoint,) = objects()["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["port"] == service["name"]
    (ingress,) = objects()["NetworkPolicy"]["spec"]["ingress"]
    assert ingress["ports"] == [{"port": port["name"]}]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container()[probe]["httpGet"]["port"] == port["name"]


def test_probes_and_scrapes_ask_for_pages_that_exist() -> None:
    pages = {route.path for route in create_app(QueueManager()).routes}
    (endpoint,) = objects()["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["path"] in pages
    asked = {name: container()[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert set(asked.values()) <= pages
    assert asked == {"startup": "/readyz", "liveness": "/livez", "readiness": "/readyz"}


def test_the_grace_period_is_longer_than_what_has_to_happen_in_it() -> None:
    deployment = objects()["Deployment"]
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    drain = int(deployment["metadata"]["annotations"]["lane-obs/drain-timeout-seconds"])
    before = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    close = inspect.signature(QueueManager).parameters["close_timeout"].default
    assert grace >= before + drain + close + 10


def test_nothing_runs_as_root_or_writes_where_it_should_not() -> None:
    pod = objects()["Deployment"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    user = f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    assert user == instruction("USER").text
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container()["resources"]["limits"].keys() == {"memory"}
    (mount,) = container()["volumeMounts"]
    assert mount["mountPath"] == instruction("WORKDIR").text


def test_the_image_is_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    name, _, tag = container()["image"].partition(":")
    assert tag == version
    assert read(KUBERNETES / "kustomization.yaml")["images"] == [{"name": name, "newTag": version}]
    assert f"--tag {name}:{version} " in (ROOT / "deploy" / "Dockerfile").read_text()
    assert dockerfile()


# --- scaling ----------------------------------------------------------------------------------------------------


def test_scaling_asks_for_metrics_that_exist_by_labels_that_they_have() -> None:
    known = {metric.name: {"queue", "job", *metric.labels} for metric in CATALOGUE}
    for trigger in objects()["ScaledObject"]["spec"]["triggers"]:
        query = trigger["metadata"]["query"]
        found = re.findall(r"(lane_\w+)\{([^}]*)\}", query)
        assert found
        for name, matchers in found:
            assert set(re.findall(r"(\w+)=", matchers)) <= known[name]
            assert f'job="{objects()["Service"]["metadata"]["name"]}"' in matchers


def test_a_prometheus_that_knows_nothing_is_an_error_and_not_an_idle_queue() -> None:
    spec = objects()["ScaledObject"]["spec"]
    assert spec["minReplicaCount"] >= 1
    for trigger in spec["triggers"]:
        assert trigger["metadata"]["ignoreNullValues"] == "false"
        assert float(trigger["metadata"]["activationThreshold"]) < float(trigger["metadata"]["threshold"])
        assert trigger["metricType"] == "Value"  # all of them are ratios
    assert "replicas" not in objects()["Deployment"]["spec"]


# --- what is made of dashboards/ --------------------------------------------------------------------------------


def test_the_rules_are_fresh() -> None:
    assert not generate.stale(), "run: python -m deploy.generate"
    assert objects()["PrometheusRule"]["spec"] == read(generate.RULES)


def test_rules_stay_what_they_are() -> None:
    head = "groups:\n- name: a\n  rules:\n"
    rules = head + "  - record: b\n    expr: |\n      up\n        == 0\n\n    labels: {a: '{{ $value }}'}\n"
    assert load(generate.prometheus_rule(rules))["spec"] == load(rules)


def test_every_dashboard_becomes_a_config_map() -> None:
    kustomization = read(DASHBOARDS / "kustomization.yaml")
    names = [maker["name"] for maker in kustomization["configMapGenerator"]]
    files = [name for maker in kustomization["configMapGenerator"] for name in maker["files"]]
    assert files == [f"{name.removeprefix('lane-obs-dashboard-')}.json" for name in names]
    assert set(files) == {path.name for path in DASHBOARDS.glob("*.json")}
    assert kustomization["generatorOptions"]["labels"] == {"grafana_dashboard": "1"}
    for name in files:
        applied = json.dumps({"data": {name: (DASHBOARDS / name).read_text("utf-8")}})
        assert len(applied.encode()) < MOST_BYTES, f"{name} is too large for kubectl apply"
