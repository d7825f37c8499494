"""Where the groups of a deployment are going: an accepted spec, and what each of its revisions is made from. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from glm_operator.api.engine import Limits
from glm_operator.api.spec import Rollout
from glm_operator.layout import Layout
from glm_operator.manifest import Manifest
from glm_operator.render import stateful_set


@dataclass(frozen=True)
class Target:
    """An accepted spec and what follows from it."""

    name: str
    namespace: str
    replicas: int
    revision: str
    spec: Mapping[str, object]  # the accepted one, in normal form
    image: str  # the worker image in the target's template
    templates: Mapping[str, Manifest]  # by revision: of the target, and of those that groups still run
    policy: Rollout = field(default_factory=Rollout)
    progress_deadline_s: int = Limits().start_limit_seconds + 600
    layout: Layout | None = None  # None: of a record that this version cannot read
    newer_revision: str | None = None  # of what this version would render; None: it is the same
    serving: int = 0  # the most groups that served since it was accepted, of those that are wanted
    proven: tuple[str, ...] = ()  # revisions at which a group was available, the last accepted first
    is_adopted: bool = False  # the target's record says: its rendering is newer than its spec
    is_adoption: bool = False  # nothing but the rendering differs from what was accepted last
    is_pinned: bool = False  # somebody asked for this revision by name, and not for the newer rendering
    passed_over: str = ""  # a revision that was asked for by name and is not taken: nobody could ask it by TLS

    def manifest(self, group: str, revision: str, annotations: Mapping[str, str]) -> Manifest | None:
        """Return the StatefulSet of a group at a revision; None where nothing says what it is made from."""
        template = self.templates.get(revision)
        if template is None:
            return None
        return stateful_set(template, self.namespace, group, revision, annotations)

    @property
    def pods_per_group(self) -> int:
        return int(self.templates[self.revision]["spec"]["replicas"])
