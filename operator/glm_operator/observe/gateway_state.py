"""What a gateway says of itself on its management port. Pure."""

from pydantic import BaseModel, ConfigDict


class _Said(BaseModel):
    """Fields of a later version are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class GatewayGroup(_Said):
    """A group as a gateway sees it. plain: it answered without frames."""

    ready: bool = False
    leaving: bool = False
    plain: bool = False
    in_flight: int = 0


class GatewayModel(_Said):
    """A model, and its groups by name."""

    groups: dict[str, GatewayGroup] = {}


class GatewayState(_Said):
    """A page /state. keys: None: it asks for none, or does not say. running: requests.

    cut: requests that ended in an error since it began, as the drain of their group was over; None: it does not say.
    """

    version: str = ""
    config_digest: str = ""
    config_fault: str | None = None
    keys: int | None = None
    running: int = 0
    cut: int | None = None
    models: dict[str, GatewayModel] = {}

    @property
    def told(self) -> object:
        """What of it a person is told, to be compared."""
        return self.config_fault, self.keys == 0, sorted(self.plain_groups), self.cut

    @property
    def plain_groups(self) -> list[str]:
        return [name for model in self.models.values() for name, group in model.groups.items() if group.plain]
