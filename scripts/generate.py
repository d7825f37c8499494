"""Write every file that is generated from code: the CRD, its table, the runbook, the metrics, the chart's copies.

`make crds` runs it; tests/contract fails when a file is stale.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import yaml
from api_table import api_markdown
from metrics_table import metrics_markdown
from reasons_table import reasons_markdown

from glm_operator.api.crd import HEADER, crd
from glm_operator.cluster import rbac
from glm_operator.cluster.metrics.recording import recording_rules

ROOT = Path(__file__).resolve().parents[1]
ALERTS = ROOT / "docs/runbooks/alerts.md"  # written by hand
RULES_HEADER = "# Generated from operator/glm_operator/cluster/rbac.py by `make crds`. Edit there.\n"
RECORDING_HEADER = "# Generated from operator/glm_operator/cluster/metrics/recording.py by `make crds`. Edit there.\n"


def rules_yaml(found: Iterable[rbac.Rule] = rbac.RULES) -> str:
    """The operator's permissions as the rules of a Role, one rule a resource."""
    rules = [
        {"apiGroups": [rule.api_group], "resources": [rule.resource], "verbs": sorted(rule.verbs)} for rule in found
    ]
    return RULES_HEADER + yaml.safe_dump(rules, sort_keys=False)


def recording_yaml() -> str:
    """The recording rules as a plain rules file of Prometheus."""
    group = {"name": "glm-recording", "interval": "15s", "rules": [dict(rule) for rule in recording_rules()]}
    return RECORDING_HEADER + yaml.safe_dump({"groups": [group]}, sort_keys=False, width=160)


def generated() -> dict[Path, str]:
    """Path and text of every generated file."""
    definition = HEADER + yaml.safe_dump(crd(), sort_keys=False, width=120)
    name = "glm-operator.io_glmdeployments.yaml"
    return {
        ROOT / "crds" / name: definition,
        ROOT / "charts/glm-operator/crds" / name: definition,
        ROOT / "charts/glm-operator/files/rules.yaml": rules_yaml(),
        ROOT / "charts/glm-operator/files/certificate-rules.yaml": rules_yaml([rbac.CERTIFICATE_RULE]),
        ROOT / "charts/glm-operator/files/recording.yaml": recording_yaml(),
        ROOT / "docs/api.md": api_markdown(crd()),
        ROOT / "docs/metrics.md": metrics_markdown(),
        ROOT / "docs/operations.md": f"{reasons_markdown()}\n{ALERTS.read_text()}",
    }


def main() -> None:
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        sys.stdout.write(f"wrote {path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
