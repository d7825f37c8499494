"""Gateways before a deployment that may have no group, and stories of who asks them what."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from glm_operator.api.scaling import Scaling
from glm_operator.autoscale.signals import Signals
from glm_operator.autoscale.zero.asked import Asked, Gateway, Said
from unit.operator.autoscale.law_builders import Story, a_scaling, idle, of

IDLE_AFTER_S = 120.0


def a_zero_scaling(**given: object) -> Scaling:
    return a_scaling(**{"min": 0, "zero": {"idleAfter": f"{IDLE_AFTER_S:.0f}s"}, **given})


def says(**changes: object) -> Said:
    """Return what a gateway says that has been up for a day, and was asked nothing."""
    quiet = Said(held=0.0, running=0.0, oldest_s=0.0, idle_s=None, up_s=86_400.0)
    return replace(quiet, **changes)  # type: ignore[arg-type]


def asked(*said: Said | None) -> Asked:
    return Asked(tuple(Gateway(name=f"gw{place}", said=each) for place, each in enumerate(said)))


@dataclass
class AGateway:
    """One gateway of a story: what it was asked, and whether it says so."""

    began_s: float
    held: float = 0.0
    running: float = 0.0
    last_s: float | None = None  # when the last request came or ended
    is_silent: bool = False
    is_ready: bool = True

    def of(self, name: str, now_s: float) -> Gateway:
        if self.held or self.running:
            self.last_s = now_s
        said = Said(
            held=self.held,
            running=self.running,
            oldest_s=1.0 if self.held else 0.0,
            idle_s=None if self.last_s is None else now_s - self.last_s,
            up_s=now_s - self.began_s,
        )
        return Gateway(name=name, is_ready=self.is_ready, said=None if self.is_silent else said)


@dataclass
class Front:
    """The gateways of a story. What is held runs once a group serves."""

    gateways: dict[str, AGateway] = field(default_factory=dict)

    def seen(self, story: Story) -> Signals:
        for each in self.gateways.values():
            if story.serving and each.held:
                each.held, each.running = 0.0, each.held
        busy = sum(each.running for each in self.gateways.values())
        groups = [replace(idle(f"g{place}", story.now_s), requests_running=busy) for place in range(story.serving)]
        found = Asked(tuple(each.of(name, story.now_s) for name, each in self.gateways.items()))
        return replace(of(*groups), asked=found)


def with_asked(found: Asked) -> Callable[[Story], Signals]:
    """Return what is seen while idle groups serve, and gateways say this."""
    return lambda story: replace(of(*(idle(f"g{place}", story.now_s) for place in range(story.serving))), asked=found)
