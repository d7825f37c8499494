"""What clients may ask for: models, and further names, each of one or several of these or of servers outside."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from glm_edge.errors.failure import Failure
from glm_gateway.models.model import Model
from glm_gateway.routing.arms import Split
from glm_gateway.routing.names import target_of
from glm_gateway.upstreams.outgoing import PATHS
from glm_gateway.upstreams.upstream import Upstream


@dataclass
class Names:
    """models, upstreams: by name. splits: further names, by name; each arm is the name of a model or of an upstream.

    former: names that some groups of a model still serve it by, each with the name that it has now.
    """

    models: Mapping[str, Model]
    upstreams: Mapping[str, Upstream] = field(default_factory=dict)
    splits: Mapping[str, Split] = field(default_factory=dict)
    former: Mapping[str, str] = field(default_factory=dict)

    @property
    def known(self) -> set[str]:
        """All that clients may ask for."""
        return {*self.models, *self.splits, *self.former}

    @property
    def lengths(self) -> dict[str, int | None]:
        """All that clients may ask for, each with the tokens of prompt and answer that fit any of its models.

        None: no group of them has said so. Servers outside do not say.
        """
        return {name: self._length(name) for name in self.known}

    def target(self, name: str, key: str, path: str) -> Model | Upstream | Failure:
        """Return where a request goes. key: of who sticks to an arm. path: outside not all of ours are known."""
        if (model := self.models.get(self.former.get(name, name))) is not None:
            return model
        split = self.splits.get(name)
        if split is None:
            known = ", ".join(sorted(self.known))[:300]
            return Failure(
                404,
                f"the model '{name[:100]}' does not exist here; there are: {known}",
                "invalid_request_error",
                "model",
                "model_not_found",
            )
        arms = {arm: found for arm in split.weights if (found := self._arm(arm)) is not None}
        arm = target_of(
            split,
            key,
            ready=[arm for arm, found in arms.items() if found.is_ready],
            able=[arm for arm, found in arms.items() if isinstance(found, Model) or found.takes(path)],
        )
        if arm is None:
            outside = " and ".join(PATHS)
            return Failure(
                400,
                f"the model '{name[:100]}' is answered outside for this caller, where {path[:100]} is not known; there"
                f" are {outside}",
                "invalid_request_error",
                "model",
                "not_supported_outside",
            )
        return arms[arm]

    def keeper(self, name: str, group: str) -> Model | None:
        """Return the model behind a name that has a group, which keeps something; None: no such model has."""
        return next((model for model in self._behind(name) if model.has(group)), None)

    def _length(self, name: str) -> int | None:
        said = [model.directory.max_model_len for model in self._behind(name)]
        return min((length for length in said if length is not None), default=None)

    def _behind(self, name: str) -> list[Model]:
        """Return the models of a name, whichever of them a caller gets."""
        split = self.splits.get(name)
        arms = [self.former.get(name, name)] if split is None else split.weights
        return [self.models[arm] for arm in arms if arm in self.models]

    def _arm(self, name: str) -> Model | Upstream | None:
        return self.models.get(name) or self.upstreams.get(name)
