"""What the law remembers of nobody asking. Times are unix seconds. Pure."""

from dataclasses import dataclass, replace

from glm_operator.autoscale.zero.asked import Asked


@dataclass(frozen=True, kw_only=True)
class Idle:
    """Begin with Idle()."""

    asked_s: float | None = None  # until when some gateway may have been asked something
    serving_s: float | None = None  # since when every group serves; None: one does not, or there is none
    deaf_s: float | None = None  # since when requests could wait and nobody would hear of them
    silent: frozenset[str] = frozenset()  # gateways that said nothing at the last look, by name

    def looked(self, asked: Asked, groups: int, serving: int, now_s: float) -> "Idle":
        """Return the memory after a look. groups: of spec.replicas.

        What a gateway knew is kept when it is gone. One that went in silence may have been asked something until then;
        one that speaks again says it itself.
        """
        quiet_s = asked.quiet_s
        asked_s = self.asked_s if quiet_s is None else max(now_s - quiet_s, self.asked_s or now_s - quiet_s)
        if self.silent - {each.name for each in asked.gateways}:
            asked_s = now_s
        return replace(
            self,
            asked_s=None if asked_s is None else min(asked_s, now_s),
            serving_s=_since(self.serving_s, now_s, holds=0 < groups <= serving),
            deaf_s=_since(self.deaf_s, now_s, holds=asked.is_deaf),
            silent=frozenset(asked.silent),
        )

    def moved_by(self, seconds: float) -> "Idle":
        """Return the memory with all times moved: the clock has jumped."""
        return replace(
            self,
            asked_s=None if self.asked_s is None else self.asked_s + seconds,
            serving_s=None if self.serving_s is None else self.serving_s + seconds,
            deaf_s=None if self.deaf_s is None else self.deaf_s + seconds,
        )


def _since(since_s: float | None, now_s: float, *, holds: bool) -> float | None:
    if not holds:
        return None
    return now_s if since_s is None else min(since_s, now_s)
