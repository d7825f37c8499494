"""One pass over one GLMDeployment: parse, observe, plan, render, apply, status.

Level-triggered: looks at what exists now, never at which event woke it, so running it twice is harmless. Its only
writes are server-side apply, delete, the status and Events; if it dies between any two, the next pass goes on.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from glm_operator.api.spec import InvalidSpec, parse_deployment
from glm_operator.errors import Vanishing
from glm_operator.layout import Layout, plan
from glm_operator.manifest import Manifest, name_of
from glm_operator.observe.observed import Observed
from glm_operator.reconcile.ports import Cluster, Leaders
from glm_operator.reconcile.trial import try_missing_pod, try_spec
from glm_operator.reconcile.writes import Act
from glm_operator.render import render_shared
from glm_operator.rollout import records
from glm_operator.rollout.steps import GroupStep, Rollout, Target, foresee, plan_rollout, repair
from glm_operator.status.conditions import Facts, Refused, summarize, transitions

logger = logging.getLogger(__name__)

TRIED_AGAIN = ("WriteDenied", "WriteFailed")
"""Reasons of a refusal that a poll may find gone."""


@dataclass(frozen=True)
class Outcome:
    """What a pass came to."""

    exists: bool = True
    changed: bool = False
    settled: bool = True  # False: look again soon, something is on its way that no event will tell of


@dataclass(frozen=True)
class Reconciler:
    """A pass, with the neighbours it needs."""

    kube: Cluster
    workers: Leaders
    default_image: str
    now: Callable[[], datetime]

    async def reconcile(self, namespace: str, name: str) -> Outcome:
        """Move one GLMDeployment a single safe step towards its spec. Raises Unavailable: try again."""
        body = await self.kube.deployment(namespace, name)
        if body is None or "deletionTimestamp" in body["metadata"]:
            return Outcome(exists=False)  # ownerReferences delete everything
        try:
            return await self._reconcile(body)
        except Vanishing as error:
            # The namespace goes, or the deployment went since we looked; if not, the next pass finds out.
            logger.info("%s/%s: %s", namespace, name, error)
            return Outcome(settled=False)

    async def _reconcile(self, body: Manifest) -> Outcome:
        observed = await self.kube.observe(body, self.now())
        target, refused, is_frozen = await self._decide(body, observed)
        act = Act(self.kube, body, observed)
        rollout, steps = None, repair(observed)
        # The record comes first: what groups are moved to must be known to whoever continues.
        if target is not None and not is_frozen and await act.record(target):
            rollout = plan_rollout(target, observed)
            steps = rollout.steps
        await self._act(act, body, target, steps, observed)
        after = foresee(observed, act.done, target)
        untouched = [group for index, group in after.groups.items() if group == observed.groups.get(index)]
        lacking = await try_missing_pod(self.kube, body, observed, untouched, self.now())
        if lacking is not None:
            after = replace(after, groups={**after.groups, lacking.index: lacking})
        is_refused = refused is not None and refused.reason in TRIED_AGAIN
        stands_still = bool(act.blocked) or is_refused or lacking is not None
        facts = Facts(
            name=name_of(body),
            namespace=body["metadata"]["namespace"],
            generation=body["metadata"].get("generation", 0),
            target=target,
            refused=refused,
            rollout=rollout,
            observed=after,
            reports=await self.workers.reports(observed.groups.values()),
            blocked=tuple(act.blocked),
            previous=body.get("status") or {},
        )
        changed = act.changed
        status = summarize(facts, self.now())
        if await self.kube.patch_status(body, status):
            changed = changed or not stands_still  # what stands still in ever new words is asked ever more rarely
            told = transitions(facts.previous, status)
            for transition in told:
                logger.info(
                    "deployment=%s/%s %s: %s", facts.namespace, facts.name, transition.reason, transition.message
                )
            await self.kube.post_events(body, told, self.now())
        return Outcome(changed=changed, settled=not changed and not stands_still and _is_settled(facts, rollout))

    async def _decide(self, body: Manifest, observed: Observed) -> tuple[Target | None, Refused | None, bool]:
        """Return where the groups go: to the newest spec, or, where that cannot be, to the last accepted one.

        And whether they stay as they are: an operator of another version renders an accepted spec in another way,
        and that may be refused, too.
        """
        newest = self._newest(body)
        refused = await try_spec(self.kube, body, newest, observed) if isinstance(newest, Target) else newest
        if isinstance(newest, Target) and refused is None:
            return newest, None, False
        last = records.restore(body, observed)
        is_frozen = last is not None and await try_spec(self.kube, body, last, observed) is not None
        return last, refused, is_frozen

    def _newest(self, body: Manifest) -> Target | Refused:
        """Return where the newest spec would have the groups go, or why it cannot be."""
        try:
            deployment = parse_deployment(body, default_image=self.default_image)
        except InvalidSpec as error:
            return Refused("InvalidSpec", str(error))
        layout = plan(deployment)
        if isinstance(layout, Layout):
            return Target.of(deployment, layout)
        return Refused("LayoutRefused", layout.message)

    async def _act(
        self, act: Act, body: Manifest, target: Target | None, steps: Iterable[GroupStep], observed: Observed
    ) -> None:
        """Take one step of everything. What groups share is repaired also where no spec of theirs can be read."""
        if target is not None or observed.has_groups:
            for manifest in render_shared(name_of(body), body["metadata"]["namespace"]):
                await act.apply(manifest)
        for step in steps:
            await act.take(step, target)
        if target is not None:
            for name in records.surplus(observed, records.name_of_spec(target.deployment)):
                await act.forget(name)


def _is_settled(facts: Facts, rollout: Rollout | None) -> bool:
    """Tell whether nothing is on its way: what is still to come would show up in no event of the cluster."""
    if rollout is not None and (rollout.outdated or rollout.surplus):
        return False
    groups = facts.observed.groups
    return all(index in groups and groups[index].is_available for index in range(facts.wanted))
