"""The promises and the policy that hold: what was put, else what the settings say; and what a server hears of them."""

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from glm_worker.messages import Policy, SetPolicy, SetSlo, Slo
from glm_worker.server.policy import policy_digest
from glm_worker.supervisor.told.kept import kept_policy, kept_slo
from glm_worker.supervisor.told.policy_wait import PolicyWait

_log = logging.getLogger("glm_worker.supervisor")


class Told:
    """Takes what is put, keeps it for servers to come, and tells the one that runs."""

    def __init__(
        self,
        kept_in: Callable[[str], Path],
        own_policy: Policy,
        *,
        awaits_policy: bool,
        tell: Callable[[msgspec.Struct], None],
    ) -> None:
        """kept_in: the file for a kind. own_policy: what the settings say; it holds until another is put.

        tell: says it to the server that runs, if one does.
        """
        self._slo = kept_slo(kept_in("slo"))
        self._policy = kept_policy(kept_in("policy"))
        self._own_policy = own_policy
        self._tell = tell
        self.wait = PolicyWait(is_on=awaits_policy and self._policy.value is None)
        is_own_meant = own_policy != Policy() and not awaits_policy
        if is_own_meant and self._policy.value not in (None, own_policy):
            _log.warning("the policy that was put, %s, holds instead of that of the settings", self._policy.digest)

    @property
    def slo_digest(self) -> str | None:
        """The digest of the promises; None: nobody has ever put any."""
        return self._slo.digest

    @property
    def policy_digest(self) -> str | None:
        """The digest of the policy that holds; None: nobody has ever said one, and the defaults or less hold."""
        if self._policy.value is None and self._own_policy != Policy() and not self.wait.is_on:
            return policy_digest(self._own_policy)
        return self._policy.digest

    def first_words(self) -> list[msgspec.Struct]:
        """Return what a server is told as it starts, before it answers anybody."""
        promised: list[msgspec.Struct] = [] if self._slo.value is None else [SetSlo(self._slo.value)]
        return [SetPolicy(self._policy.value or self._own_policy), *promised]

    def take_slo(self, slo: Slo) -> str:
        """Measure by these promises from now on, in the server that runs and in those to come; return their digest."""
        digest = self._slo.keep(slo)
        self._tell(SetSlo(slo))
        _log.info("promises %s: classes %s", digest, ", ".join(each.name for each in slo.classes) or "none")
        return digest

    def take_policy(self, policy: Policy) -> str:
        """Treat requests by this policy from now on, in this server and in those to come; return its digest."""
        digest = self._policy.keep(policy)
        self._tell(SetPolicy(policy))
        self.wait.end()
        _log.info("policy %s: %s, trust_proxy_headers=%s", digest, policy.reasoning, policy.trust_proxy_headers)
        return digest
