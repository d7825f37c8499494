"""GLMDeployments in files, and their plan."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from glm_operator.api.spec import GLMDeployment, InvalidSpec, parse_deployment
from glm_operator.layout import Layout, Refusal, plan
from glm_operator.names import DEFAULT_WORKER_IMAGE, KIND


class FileError(Exception):
    """A file that holds no GLMDeployment. The message names the file and what it holds."""


@dataclass(frozen=True)
class Planned:
    """A spec that can be: what the operator would make of it."""

    deployment: GLMDeployment
    layout: Layout
    labels: Mapping[str, str] = field(default_factory=dict)  # of the deployment, by which gateways of others find it


class KubernetesLoader(yaml.SafeLoader):
    """YAML as kubectl reads it: dates and times such as 12:30:45 are text, and 1e3 is a number."""


KubernetesLoader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag.rpartition(":")[2] not in ("timestamp", "int", "float")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
KubernetesLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$"), list("-+0123456789")
)
KubernetesLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?$|[-+]?[0-9]+[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def read_planned(path: Path, *, worker_image: str = DEFAULT_WORKER_IMAGE) -> Planned:
    """Return the one GLMDeployment of a file with its layout; worker_image is that of a spec that names none.

    Raises FileError (no such file, not YAML, none or several) or InvalidSpec (what the operator says of it).
    """
    body = _only_body(path)
    deployment = parse_deployment(body, default_image=worker_image)
    layout = plan(deployment)
    if isinstance(layout, Refusal):
        raise InvalidSpec(layout.message)
    return Planned(deployment, layout, _labels(body))


def _labels(body: Mapping[str, Any]) -> dict[str, str]:
    labels = body["metadata"].get("labels") or {}
    if not isinstance(labels, dict) or not all(isinstance(text, str) for pair in labels.items() for text in pair):
        raise InvalidSpec(f"metadata.labels is {labels!r}; expected names and texts")
    return labels


def _only_body(path: Path) -> dict[str, object]:
    try:
        text = sys.stdin.read() if path == Path("-") else path.read_text(encoding="utf-8")
        documents = [document for document in yaml.load_all(text, KubernetesLoader) if document is not None]
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes that are no text
        raise FileError(f"{path} is not YAML: {error}") from error
    kinds = [document.get("kind", "no kind") if isinstance(document, dict) else "no object" for document in documents]
    if kinds != [KIND]:
        raise FileError(f"{path} must hold exactly one {KIND}; it holds: {', '.join(map(str, kinds)) or 'nothing'}")
    return dict(documents[0])
