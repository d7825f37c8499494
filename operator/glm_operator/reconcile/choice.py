"""Where the groups of a deployment go: to the newest spec, or to the last accepted one. Pure."""

from dataclasses import dataclass

from glm_operator import names
from glm_operator.api.spec import GLMDeployment, InvalidSpec, parse_deployment
from glm_operator.api.trouble import Trouble
from glm_operator.layout import Layout, plan
from glm_operator.manifest import Manifest
from glm_operator.observe.observed import Observed
from glm_operator.rollout import records
from glm_operator.rollout.target import Target


@dataclass(frozen=True)
class Newest:
    """The newest spec, where our own rules accept it."""

    deployment: GLMDeployment
    layout: Layout
    wanted_revision: str  # that somebody asked for by name
    newest_then: str  # the newest rendering when that was asked for; empty: nobody knows
    has_tls: bool = False  # of groups that are rendered now

    @property
    def is_automatic(self) -> bool:
        return self.deployment.spec.rollout.adopt == "Automatic"

    def target(self, observed: Observed) -> Target:
        """Return where it takes the groups; also to the rendering of this version, if somebody wants that."""
        return records.accept(
            self.deployment,
            self.layout,
            observed,
            wanted=self.wanted_revision,
            newest_then=self.newest_then,
            adopts=self.is_automatic,
            has_tls=self.has_tls,
        )

    def without_adoption(self, observed: Observed) -> Target:
        """Return where it takes the groups while the rendering of this version may not be taken."""
        return records.accept(self.deployment, self.layout, observed, has_tls=self.has_tls)


def newest(body: Manifest, default_image: str, *, has_tls: bool = False) -> Newest | Trouble:
    """Return the newest spec, or why our own rules refuse it. has_tls: of groups that are rendered now."""
    try:
        deployment = parse_deployment(body, default_image=default_image)
    except InvalidSpec as error:
        return Trouble("spec", "InvalidSpec", str(error))
    layout = plan(deployment)
    if not isinstance(layout, Layout):
        return Trouble("spec", "LayoutRefused", layout.message)
    annotations = body["metadata"].get("annotations") or {}
    wanted, then = (annotations.get(name, "") for name in (names.ADOPT_ANNOTATION, names.NEWEST_THEN_ANNOTATION))
    return Newest(deployment, layout, wanted, then, has_tls)


def is_new(target: Target, observed: Observed) -> bool:
    """Tell whether a target is not what was accepted last: it is tried before anything is moved to it."""
    last = records.latest(observed.records)
    return last is None or last.revision != target.revision
