"""A program: an operator of another version, which gives StatefulSets another name of their Service.

No update can change that name, so a group can only be replaced to get it. Run with the flags of `glm-operator`.
"""

from glm_operator import main
from glm_operator.api.spec import GLMDeployment
from glm_operator.layout import Layout
from glm_operator.manifest import Manifest
from glm_operator.render import group_template
from glm_operator.rollout import records

SERVICE = "pods-of-another-version"


def other_template(deployment: GLMDeployment, layout: Layout, *, has_tls: bool = False) -> Manifest:
    template = group_template(deployment, layout, has_tls=has_tls)
    return {**template, "spec": {**template["spec"], "serviceName": SERVICE}}


if __name__ == "__main__":
    records.group_template = other_template  # type: ignore[attr-defined]
    main.main()
