"""The files of the demo in deploy/ agree with each other and with the package. There is no Docker here to run them."""

from __future__ import annotations

import inspect
import re
import tomllib
import urllib.parse
from pathlib import Path

import pytest
import typer.main
import yaml
from compose_spec import PyCompose

from lane_obs.alerts import Severity
from lane_obs.cli import app as command_line
from lane_obs.http import MetricsServer, create_app
from lane_obs.runtime.manager import QueueManager
from tests.architecture.deployed import (
    DASHBOARDS,
    DEPLOY,
    ROOT,
    command,
    compose,
    container,
    dockerfile,
    health_command,
    instruction,
    load,
    mounts,
    on_host,
    option,
    ports,
    read,
    yaml_files,
)

SERVICES = ["alertmanager", "app", "grafana", "jaeger", "prometheus"]
METRICS_PORT = inspect.signature(MetricsServer).parameters["port"].default
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

PROMETHEUS = read(DEPLOY / "prometheus" / "prometheus.yml")
ALERTMANAGER = read(DEPLOY / "alertmanager" / "alertmanager.yml")
DATASOURCES = read(DEPLOY / "grafana" / "provisioning" / "datasources" / "datasources.yml")["datasources"]
PROVIDERS = read(DEPLOY / "grafana" / "provisioning" / "dashboards" / "dashboards.yml")["providers"]


@pytest.mark.parametrize("path", yaml_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_is_yaml_in_which_no_key_is_there_twice(path: Path) -> None:
    assert isinstance(read(path), dict)


def test_a_key_that_is_there_twice_is_found() -> None:
    with pytest.raises(yaml.YAMLError, match="twice"):
        load("a:\n  b: 1\n  b: 2\n")


# --- compose ----------------------------------------------------------------------------------------------------


def test_the_compose_file_is_one() -> None:
    assert sorted(PyCompose.from_yaml((DEPLOY / "compose.yaml").read_text("utf-8")).service_names()) == SERVICES


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("restart:", "restarts:"), ("unless-stopped", "sometimes"), ("127.0.0.1:3000:3000", "127.0.0.1:3000:300000")],
)
def test_the_check_of_it_finds_mistakes(right: str, wrong: str) -> None:
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    assert right in text
    with pytest.raises(ValueError, match="services"):
        PyCompose.from_yaml(text.replace(right, wrong, 1))


def test_it_needs_no_environment() -> None:
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    assert re.findall(r"\$\{?\w+", text) == re.findall(r"\$\{\w+(?=:-[^}]+\})", text)


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_mounted_exists_and_is_read_only(service: str) -> None:
    for mount in mounts(service):
        if mount.source is not None:
            assert mount.source.exists(), mount
            assert mount.mode == "ro", mount
            assert ROOT in mount.source.parents


def test_every_volume_is_used() -> None:
    used = {text.partition(":")[0] for service in compose()["services"].values() for text in service.get("volumes", [])}
    assert {name for name in used if not name.startswith(".")} == set(compose()["volumes"])


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_published_on_loopback_only(service: str) -> None:
    assert ports(service)
    for port in ports(service):
        assert port.address == "127.0.0.1"
        assert port.published == port.target


def test_no_two_services_publish_the_same_port() -> None:
    published = [port.published for service in SERVICES for port in ports(service)]
    assert len(published) == len(set(published))


@pytest.mark.parametrize("service", SERVICES)
def test_images_are_pinned_and_services_come_back(service: str) -> None:
    definition = compose()["services"][service]
    assert re.search(r":v?\d+\.\d+\.\d+$", definition["image"])
    assert definition["restart"] == "unless-stopped"
    assert "no-new-privileges:true" in definition["security_opt"]
    assert ("healthcheck" in definition) != (service == "app")  # the app's is in its image
    assert set(definition.get("depends_on", {})) <= set(SERVICES)


def test_the_version_of_an_image_is_named_once() -> None:
    everything = [path for path in DEPLOY.rglob("*") if path.is_file()] + [*ROOT.glob("docs/*.md"), ROOT / "README.md"]
    text = "\n".join(path.read_text("utf-8") for path in everything if path.suffix != ".pyc")
    for service in set(SERVICES) - {"app"}:
        name, _, tag = compose()["services"][service]["image"].partition(":")
        assert re.findall(rf"{name.rpartition('/')[2]}:(\S+)", text).count(tag) == 1
        assert text.count(f"{name}:") == 1


def test_no_password_stands_in_the_open() -> None:
    environment = compose()["services"]["grafana"]["environment"]
    assert [name for name in environment if re.search(r"PASSWORD|SECRET|TOKEN", name)] == []
    # Grafana's own default is an account with a password that everybody knows.
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


# --- who talks to whom ------------------------------------------------------------------------------------------

ADDRESSES = [
    *[target for job in PROMETHEUS["scrape_configs"] for group in job["static_configs"] for target in group["targets"]],
    *[target for group in PROMETHEUS["alerting"]["alertmanagers"][0]["static_configs"] for target in group["targets"]],
    *[urllib.parse.urlsplit(source["url"]).netloc for source in DATASOURCES],
    *[urllib.parse.urlsplit(word).netloc for word in command("app") if word.startswith("http")],
]


@pytest.mark.parametrize("address", sorted(set(ADDRESSES)))
def test_every_address_is_a_port_of_a_service(address: str) -> None:
    host, _, port = address.partition(":")
    assert int(port) in {known.target for known in ports(host)}


def test_all_that_is_to_be_connected_is() -> None:
    assert sorted(set(ADDRESSES)) == [
        "alertmanager:9093", "app:9464", "jaeger:16686", "jaeger:4317", "prometheus:9090"
    ]  # fmt: skip


def test_pages_in_the_browser_are_where_they_are_published() -> None:
    urls = re.findall(r"http://127\.0\.0\.1:(\d+)", "\n".join(path.read_text("utf-8") for path in yaml_files()))
    inside = {13133}  # Jaeger's health, for its own container only
    assert {int(port) for port in urls} - inside <= {port.published for name in SERVICES for port in ports(name)}


def test_prometheus_has_the_demos_rules_and_the_consoles() -> None:
    (pattern,) = PROMETHEUS["rule_files"]
    config = option("prometheus", "config.file")
    assert on_host("prometheus", config) == DEPLOY / "prometheus" / "prometheus.yml"
    folder = Path(config).parent / pattern
    seen = {mount.source: mount.target for mount in mounts("prometheus") if Path(mount.target).match(str(folder))}
    assert list(seen) == [DASHBOARDS / "demo-alerts.yml"]
    consoles = on_host("prometheus", option("prometheus", "web.console.templates"))
    assert consoles == DEPLOY / "prometheus" / "consoles"  # with the levels of the demo's rules
    pages = {path.name for path in consoles.glob("*.html")}
    assert pages == {path.name for path in (DASHBOARDS / "consoles").glob("*.html")}
    assert set() < set(re.findall(r"`/consoles/([^`]+)`", (DEPLOY / "README.md").read_text("utf-8"))) <= pages
    assert "--enable-feature=exemplar-storage" in command("prometheus")


def test_the_demos_rules_are_not_loaded_with_those_of_a_service_because_they_clash() -> None:
    demo, service = (
        {rule.get("alert") or rule["record"] for group in read(path)["groups"] for rule in group["rules"]}
        for path in (DASHBOARDS / "demo-alerts.yml", DASHBOARDS / "lane-obs-alerts.yml")
    )
    assert {"LaneStalled", "lane:ready_depth"} <= demo & service


def test_every_window_of_the_demos_rules_has_some_scrapes_in_it() -> None:
    windows = re.findall(r"\[(\d+)s\]", (DASHBOARDS / "demo-alerts.yml").read_text("utf-8"))
    interval = PROMETHEUS["global"]["scrape_interval"]
    assert min(map(int, windows)) >= 4 * int(interval.removesuffix("s"))
    assert PROMETHEUS["global"]["evaluation_interval"] == interval


def test_programs_store_what_they_keep_in_volumes() -> None:
    volumes = {mount.target for name in SERVICES for mount in mounts(name) if mount.source is None}
    assert volumes == {
        option("prometheus", "storage.tsdb.path"),
        option("alertmanager", "storage.path"),
        "/var/lib/grafana",
    }


def test_the_job_has_one_name() -> None:
    assert [job["job_name"] for job in PROMETHEUS["scrape_configs"]] == ["lane-obs"]


def test_alertmanager_knows_the_severities_and_lets_the_worse_one_speak() -> None:
    assert option("alertmanager", "config.file") in {mount.target for mount in mounts("alertmanager")}
    (rule,) = ALERTMANAGER["inhibit_rules"]
    assert rule == {
        "source_matchers": [f'severity="{Severity.CRITICAL}"'],
        "target_matchers": [f'severity="{Severity.WARNING}"'],
        "equal": ["alertname", "queue", "lane", "instance"],
    }
    route = ALERTMANAGER["route"]
    assert route["group_by"] == ["alertname", "queue"]
    assert [child["matchers"] for child in route["routes"]] == [[f'severity="{Severity.CRITICAL}"']]
    named = {route["receiver"], *(child["receiver"] for child in route["routes"])}
    assert named == {receiver["name"] for receiver in ALERTMANAGER["receivers"]}


# --- Grafana ----------------------------------------------------------------------------------------------------


def test_an_exemplar_leads_to_its_trace() -> None:
    uids = {source["type"]: source["uid"] for source in DATASOURCES}
    assert uids == {"prometheus": "prometheus", "jaeger": "jaeger"}
    prometheus = next(source for source in DATASOURCES if source["type"] == "prometheus")
    assert prometheus["isDefault"] is True
    assert prometheus["jsonData"]["timeInterval"].partition(" ")[0] == PROMETHEUS["global"]["scrape_interval"]
    links = prometheus["jsonData"]["exemplarTraceIdDestinations"]
    assert {link["name"] for link in links} == {"trace_id"}  # as PrometheusSink calls it
    assert links[0]["datasourceUid"] == uids["jaeger"]
    # The second $ keeps Grafana from taking it for a variable of its environment.
    assert links[1]["url"].endswith("/trace/$${__value.raw}")


def test_grafana_finds_the_dashboards() -> None:
    (provider,) = PROVIDERS
    place = on_host("grafana", provider["options"]["path"])
    assert place == DEPLOY / "grafana" / "dashboards"  # with the levels of the demo's rules
    environment = compose()["services"]["grafana"]["environment"]
    assert on_host("grafana", environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]).is_file()
    for kind in ("datasources", "dashboards"):
        assert on_host("grafana", f"/etc/grafana/provisioning/{kind}/{kind}.yml").is_file()
    found = {path.name: read(path) for path in place.rglob("*")}
    assert {name: dashboard["uid"] for name, dashboard in found.items()} == {
        "overview.json": "lane-obs-overview",
        "lane.json": "lane-obs-lane",
        "process.json": "lane-obs-process",
    }


# --- the app and its image --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [command("app"), instruction("CMD").words, container()["args"]], ids=["compose", "image", "kubernetes"]
)
def test_the_demo_understands_how_it_is_called(words: list[str]) -> None:
    name, *arguments = words
    group = typer.main.get_command(command_line)
    demo = group.commands[name]
    context = demo.make_context(name, list(arguments))
    assert context.params["metrics_host"] == "0.0.0.0"
    assert context.params["hold"] is True


def test_the_port_is_the_same_everywhere() -> None:
    assert [port.target for port in ports("app")] == [METRICS_PORT]
    assert instruction("EXPOSE").text == str(METRICS_PORT)
    (url,) = re.findall(r"'(http://\S+)'", health_command()[-1])
    assert url == f"http://127.0.0.1:{METRICS_PORT}/livez"
    assert "/livez" in {route.path for route in create_app(QueueManager()).routes}


def test_the_app_has_the_name_that_dashboards_look_for_traces_under() -> None:
    name = compose()["services"]["app"]["environment"]["OTEL_SERVICE_NAME"]
    assert {"name": "OTEL_SERVICE_NAME", "value": name} in container()["env"]
    for path in [*DASHBOARDS.glob("*.json"), *(DEPLOY / "grafana" / "dashboards").glob("*.json")]:
        variables = {found["name"]: found for found in read(path)["templating"]["list"]}
        assert variables["service"]["query"] == name, path


def test_the_app_may_finish_its_drain() -> None:
    grace = compose()["services"]["app"]["stop_grace_period"]
    drain = float(container_annotation())
    assert float(grace.removesuffix("s")) >= drain + inspect.signature(QueueManager).parameters["close_timeout"].default
    assert instruction("STOPSIGNAL").text == "SIGTERM"
    assert instruction("ENTRYPOINT").text.startswith("[")  # no shell in between, which would keep the signal


def container_annotation() -> str:
    return read(DEPLOY / "kubernetes" / "deployment.yaml")["metadata"]["annotations"]["lane-obs/drain-timeout-seconds"]


def test_the_image_is_slim_pinned_and_not_roots() -> None:
    build, final = dockerfile()
    base = final[0].text
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", base)
    assert build[0].text == f"{base} AS build"  # an environment works where its Python is
    minor = ".".join(base.removeprefix("python:").split(".")[:2])
    assert f"Programming Language :: Python :: {minor}" in PROJECT["classifiers"]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", instruction("USER").text)
    runs = " ".join(found.text for found in final if found.name == "RUN")
    assert "pip uninstall --yes pip" in runs
    assert f"rm -rf /usr/local/lib/python{minor}/ensurepip" in runs
    assert not re.search(r"apt|pip install", runs)
    assert instruction("COPY").words == ["--from=build", "/opt/lane-obs", "/opt/lane-obs"]
    assert "python -m venv --without-pip /opt/lane-obs" in " ".join(found.text for found in build)
    assert instruction("ENTRYPOINT").words[0] in PROJECT["scripts"]
    assert compose()["services"]["app"]["image"].rpartition(":")[2] == PROJECT["version"]


def test_the_build_gets_all_that_it_needs_and_nothing_else() -> None:
    (build, _) = dockerfile()
    copied = [word for found in build if found.name == "COPY" for word in found.words[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(copied) >= {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], *wheel["packages"]}
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*"
    assert sorted(line[1:] for line in ignored if line.startswith("!")) == sorted(copied)
    definition = compose()["services"]["app"]["build"]
    assert (DEPLOY / definition["context"]).resolve() == ROOT
    assert ROOT / definition["dockerfile"] == DEPLOY / "Dockerfile"


# --- what the README says ---------------------------------------------------------------------------------------


def test_the_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)\s:]+)\)", (DEPLOY / "README.md").read_text("utf-8"))
    assert links
    assert [link for link in links if not (DEPLOY / link).exists()] == []


def test_the_readme_has_every_port_and_every_file() -> None:
    text = (DEPLOY / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", text, re.MULTILINE)
    published = [(str(port.published), service) for service in SERVICES for port in ports(service)]
    assert sorted(rows) == sorted(published)
    files = [path.relative_to(DEPLOY) for path in DEPLOY.rglob("*") if path.suffix not in {".py", ".pyc", ".md"}]
    missing = [str(path) for path in files if (DEPLOY / path).is_file() and f"`{path}`" not in text]
    assert missing == []
