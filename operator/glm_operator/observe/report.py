"""What the leading supervisor of a group says at /group, in the operator's own types. Pure.

Fields this version does not know are ignored and absent ones have neutral values, because workers of another version
may run while the operator is upgraded.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from glm_operator.api.status import MAX_TEXT, Failure, LoadProgress
from glm_operator.names import pod_name


def slo_digest(body: Mapping[str, object]) -> str:
    """Return 16 hexadecimal digits that stand for promises as put to workers: a worker that has them shows the same.

    body: what Slo.for_workers() makes.
    """
    return _digest(body)


def policy_digest(body: Mapping[str, object]) -> str:
    """Return 16 hexadecimal digits that stand for a policy, as slo_digest. body: what Policy.for_workers() makes."""
    return _digest(body)


def _digest(body: Mapping[str, object]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class _Said(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Cause(_Said):
    """Why a generation ended."""

    rank: int | None = None
    pod: int | None = None  # its index in the group
    reason: str = "failed"
    exit_code: int | None = None
    signal: int | None = None
    message: str | None = None


class Generation(_Said):
    """One try to serve."""

    id: str = ""
    ready_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None
    cause: Cause | None = None


class Load(_Said):
    """Progress of reading weights."""

    done_bytes: int = 0
    total_bytes: int = 0


class GroupReport(_Said):
    """One group, as its leader sees it."""

    state: Literal["waiting_for_peers", "starting", "serving", "backing_off", "draining"]
    generation: str | None = None
    slo_digest: str | None = None  # of the promises that its worker measures by; None: it was never put any
    policy_digest: str | None = None  # of the policy that its worker treats requests by; None: it was never told one
    awaits_policy: bool = False  # it was never put any, and until then it shows reasoning to nobody
    unknown_settings: list[str] = []  # variables of its pod that look like settings and are none to its worker
    load: Load | None = None
    in_flight_tokens: int | None = None  # prompts and what is generated so far, of all requests; None: not known
    consecutive_start_failures: int = 0
    deaths_while_serving: int = 0
    missing_pods: list[int] = []
    refused_pods: list[str] = []  # why, of the missing ones that dialled
    generations: list[Generation] = []

    @property
    def has_served(self) -> bool:
        """Whether a generation of this leader was ever ready."""
        return self.deaths_while_serving > 0 or any(generation.ready_at is not None for generation in self.generations)

    @property
    def has_failed(self) -> bool:
        """Whether it tried to start, failed, and never was ready since its pod began."""
        return self.consecutive_start_failures > 0 and not self.has_served

    @property
    def reports_in_flight_tokens(self) -> bool:
        """Whether the worker is of a version that reports them; it may not know them just now."""
        return "in_flight_tokens" in self.model_fields_set

    @property
    def takes_slo(self) -> bool:
        """Whether the worker is of a version that promises can be put to."""
        return "slo_digest" in self.model_fields_set

    @property
    def takes_policy(self) -> bool:
        """Whether the worker is of a version that a policy can be put to."""
        return "policy_digest" in self.model_fields_set

    @property
    def tells_settings(self) -> bool:
        """Whether the worker is of a version that says which settings it ignores."""
        return "unknown_settings" in self.model_fields_set

    def has_policy(self, digest: str, *, is_default: bool) -> bool:
        """Tell whether the worker treats requests by the policy with this digest. is_default: what it does untold.

        A worker that awaits a policy does less than the defaults until it is told them.
        """
        return self.policy_digest == digest or (is_default and self.policy_digest is None and not self.awaits_policy)

    @property
    def last_ended_at(self) -> datetime | None:
        """When the pods last parted, if they had met."""
        return self.generations[-1].ended_at if self.generations else None

    def load_progress(self) -> LoadProgress | None:
        """Return how far loading is, while there is something to load."""
        if self.load is None or self.load.total_bytes == 0 or self.state == "serving":
            return None
        return LoadProgress(done_bytes=self.load.done_bytes, total_bytes=self.load.total_bytes)

    @property
    def failure_text(self) -> str:
        """Why the last generation that failed did so, in a line; empty when none has."""
        causes = [generation.cause for generation in self.generations if generation.cause is not None]
        if not causes:
            return ""
        who = "" if causes[-1].rank is None else f"rank {causes[-1].rank} "
        return f"{who}{causes[-1].reason}: {_sentence(causes[-1]) or 'no message'}"

    def last_failure(self, group: str) -> Failure | None:
        """Return why the last generation that failed did so, the first rank that failed being the one named."""
        failed = [generation for generation in self.generations if generation.cause is not None]
        if not failed:
            return None
        cause, ended_at = failed[-1].cause, failed[-1].ended_at
        assert cause is not None
        return Failure(
            rank=cause.rank,
            pod=None if cause.pod is None else pod_name(group, cause.pod),
            reason=cause.reason[:MAX_TEXT],
            message=_sentence(cause)[:MAX_TEXT],
            time=ended_at,
        )


def _sentence(cause: Cause) -> str:
    if cause.message:
        return cause.message
    if cause.signal is not None:
        return f"signal {cause.signal}"
    return f"exit code {cause.exit_code}" if cause.exit_code is not None else ""
