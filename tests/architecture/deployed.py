"""Reads what deploy/ holds: YAML without duplicate keys, the compose file, the Dockerfile, the Kubernetes objects."""

from __future__ import annotations

import functools
import importlib
import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
DASHBOARDS = ROOT / "dashboards"

_MODELS = {
    "apps/v1": "kubernetes.apps.v1",
    "v1": "kubernetes.core.v1",
    "networking.k8s.io/v1": "kubernetes.networking.v1",
    "policy/v1": "kubernetes.policy.v1",
    "monitoring.coreos.com/v1": "prometheus_operator.v1",
    "keda.sh/v1alpha1": "keda.v1alpha1",
}
"""Where the package cloudcoil has the models that it makes of the schemas of each API."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which PyYAML keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        if len(set(keys)) < len(keys):
            raise yaml.constructor.ConstructorError(None, None, "a key is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load(text: str) -> Any:
    return yaml.load(text, _Loader)


def read(path: Path) -> Any:
    return load(path.read_text("utf-8"))


def yaml_files() -> list[Path]:
    return sorted(path for path in [*DEPLOY.rglob("*"), *DASHBOARDS.rglob("*")] if path.suffix in {".yml", ".yaml"})


# --- compose ----------------------------------------------------------------------------------------------------


@functools.cache
def compose() -> dict[str, Any]:
    return read(DEPLOY / "compose.yaml")


class Port(NamedTuple):
    address: str
    published: int
    target: int


class Mount(NamedTuple):
    """Something of the host that a container sees; `source` is `None` for a volume."""

    source: Path | None
    target: str
    mode: str


def ports(service: str) -> list[Port]:
    found = []
    for text in compose()["services"][service].get("ports", []):
        address, published, target = text.split(":")
        found.append(Port(address, int(published), int(target)))
    return found


def mounts(service: str) -> list[Mount]:
    found = []
    for text in compose()["services"][service].get("volumes", []):
        source, target, *mode = text.split(":")
        path = (DEPLOY / source).resolve() if source.startswith(".") else None
        found.append(Mount(path, target, *mode or ["rw"]))
    return found


def command(service: str) -> list[str]:
    """A service's command with the defaults of its variables, as without an environment."""
    return [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word) for word in compose()["services"][service]["command"]]


def on_host(service: str, path: str) -> Path:
    """The file of the host that a service sees at a path."""
    for mount in mounts(service):
        if mount.source is not None and (path == mount.target or path.startswith(f"{mount.target}/")):
            return mount.source / path.removeprefix(mount.target).lstrip("/")
    raise LookupError(f"{service} has nothing mounted at {path}")


def option(service: str, name: str) -> str:
    """The value of `--name=value` in a service's command."""
    return next(word.partition("=")[2] for word in command(service) if word.startswith(f"--{name}="))


# --- the image --------------------------------------------------------------------------------------------------


class Instruction(NamedTuple):
    name: str
    text: str

    @property
    def words(self) -> list[str]:
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)


@functools.cache
def dockerfile() -> list[list[Instruction]]:
    """The instructions of each stage."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text("utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    stages: list[list[Instruction]] = []
    for line in filter(None, joined.splitlines()):
        name, _, text = line.partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append(Instruction(name, text.strip()))
    return stages


def instruction(name: str) -> Instruction:
    """The last one of this name in the last stage."""
    return [found for found in dockerfile()[-1] if found.name == name][-1]


def health_command() -> list[str]:
    """What the image's HEALTHCHECK runs."""
    return json.loads(instruction("HEALTHCHECK").text.partition(" CMD ")[2])


# --- Kubernetes -------------------------------------------------------------------------------------------------


@functools.cache
def objects() -> dict[str, dict[str, Any]]:
    """The objects that are applied, by kind."""
    found = [
        read(KUBERNETES / name) for name in read(KUBERNETES / "kustomization.yaml")["resources"] if ".." not in name
    ]
    kinds = {thing["kind"]: thing for thing in found}
    assert len(kinds) == len(found)
    return kinds


def container() -> dict[str, Any]:
    (only,) = objects()["Deployment"]["spec"]["template"]["spec"]["containers"]
    return only


def check_object(thing: dict[str, Any]) -> None:
    """Raises `ValueError` for an object that the schema of its kind does not allow.

    The models are made of the API's own schemas, but overlook fields that those do not know. Nothing may get lost on
    the way through a model, or change its type.
    """
    module = importlib.import_module(f"cloudcoil.models.{_MODELS[thing['apiVersion']]}")
    model = getattr(module, thing["kind"]).model_validate(thing)
    kept = model.model_dump(mode="json", by_alias=True, exclude_unset=True)
    lost = sorted(set(_leaves(thing)) - set(_leaves(kept)))
    if lost:
        raise ValueError(f"not in the schema of {thing['kind']}: {lost}")


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}")
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    else:
        yield path, repr(value)
