"""One pass over one GLMDeployment in six steps: read, choose, weigh, decide, write, report.

Level-triggered: looks at what exists now, never at which event woke it, so running it twice is harmless. What the
watches brought tells whether there is anything to do; whatever is then done is decided again on what is live. Its only
writes are server-side apply, delete, the status and Events; if it dies between any two, the next pass goes on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from glm_operator import names
from glm_operator.api.reasons import Reason
from glm_operator.api.trouble import Trouble
from glm_operator.cluster.workers import NotTaken, PutRefused
from glm_operator.errors import Vanishing
from glm_operator.manifest import Manifest, name_of
from glm_operator.observe.observed import Observed, ObservedGroup, Seen
from glm_operator.observe.report import GroupReport
from glm_operator.reconcile.adoptions import Adoptions, is_adopting
from glm_operator.reconcile.certificates.keeper import Certificates, Standing
from glm_operator.reconcile.certificates.pods import may_wait, mounting, tell
from glm_operator.reconcile.choice import is_new, newest
from glm_operator.reconcile.ports import Cache, Cluster, Gateways, Leaders, Measurements
from glm_operator.reconcile.promises import Answer, Promises, lack, lack_policy, promises
from glm_operator.reconcile.trial import try_missing_pod, try_target
from glm_operator.reconcile.writes import Writes, foreign_troubles, plan_of
from glm_operator.rollout import records
from glm_operator.rollout.behind import Neighbours
from glm_operator.rollout.front import FrontPlan, House, front_plan, renders_tls, will_render_tls
from glm_operator.rollout.membership import needs_load, staying
from glm_operator.rollout.steps import Decision, decide, foresee, newcomers
from glm_operator.rollout.target import Target
from glm_operator.status.events import of_acceptance, of_steps, transitions
from glm_operator.status.facts import Facts
from glm_operator.status.measured import Measured
from glm_operator.status.summary import summarize

logger = logging.getLogger(__name__)


TRIED_AGAIN: tuple[Reason, ...] = ("WriteDenied", "WriteFailed")
"""Reasons of a refusal that the next look may find gone; of the others only another spec, or the resync, tells."""


@dataclass(frozen=True)
class Outcome:
    """What a pass came to."""

    exists: bool = True
    changed: bool = False
    settled: bool = True  # False: look again soon, something is on its way that no event will tell of
    due_at: datetime | None = None  # look again then

    def before(self, at: datetime | None) -> "Outcome":
        """Return it with another look then, at the latest."""
        times = [each for each in (self.due_at, at) if each is not None]
        return replace(self, due_at=min(times, default=None))


@dataclass(frozen=True)
class Choice:
    """Where the groups go, and why not to the newest spec."""

    target: Target | None
    refused: Trouble | None = None
    adoption_waits: str = ""
    is_tried: bool = True  # False: the target is new, and only a live pass may try it


@dataclass(frozen=True)
class Weighed:
    """What the workers say, as far as a decision or the status needs it."""

    reports: dict[str, GroupReport]
    in_flight_tokens: dict[str, int]
    promises_refused: Mapping[str, str] = field(default_factory=dict)  # by group: what it answered
    policy_refused: Mapping[str, str] = field(default_factory=dict)  # by group, as well


@dataclass(frozen=True)
class Reconciler:
    """A pass, with the neighbours it needs."""

    kube: Cluster
    cache: Cache
    workers: Leaders
    adoptions: Adoptions
    default_image: str
    now: Callable[[], datetime]
    measurements: Measurements
    gateways: Gateways
    house: House = field(default_factory=House)
    certificates: Certificates | None = None  # None: none are made

    async def reconcile(self, namespace: str, name: str) -> Outcome:
        """Move one GLMDeployment a single safe step towards its spec. Raises Unavailable: try again."""
        try:
            known = self.cache.seen(namespace, name, self.now())
            if known is not None and not _is_going(known.body):
                outcome = await self._pass(known, is_live=False)
                if outcome is not None:
                    return outcome
            body = await self.kube.deployment(namespace, name)
            if body is None:
                self.cache.forget((namespace, name))
            if body is None or _is_going(body):
                self.adoptions.note((namespace, name), adopts=False)
                if self.certificates is not None:
                    self.certificates.forget((namespace, name))
                return Outcome(exists=False)  # ownerReferences delete everything
            outcome = await self._pass(Seen(body, await self.kube.observe(body, self.now())), is_live=True)
            assert outcome is not None
            return outcome
        except Vanishing as error:
            # The namespace goes, or the deployment went since we looked; if not, the next pass finds out.
            logger.info("%s/%s: %s", namespace, name, error)
            return Outcome(settled=False)

    async def _pass(self, seen: Seen, *, is_live: bool) -> Outcome | None:
        """Choose, weigh, decide, write, report. On what the watches brought: None as soon as there is work to do."""
        choice = await self._choose(seen, may_try=is_live)
        weighs_load = choice.target is not None and needs_load(choice.target, seen.observed)
        if not is_live and (not choice.is_tried or weighs_load):
            return None
        weighed = await self._weigh(seen.observed, is_live=is_live, needs_load=weighs_load)
        decision = self._decide(choice.target, seen.observed, weighed)
        front = front_plan(seen.body, seen.observed, choice.target, self._neighbours(seen.body), self.house)
        front, look_at = await self._certified(seen, front)
        plan = plan_of(seen.body, seen.observed, choice.target, decision, front)
        writes = Writes(self.kube, seen.body, seen.observed)
        if is_live:
            await writes.write(plan)
            if decision is not None and (refused := writes.refused(newcomers(decision))):
                decision = self._decide(choice.target, seen.observed, weighed, refused)
                await writes.write(plan_of(seen.body, seen.observed, choice.target, decision, front))
        elif not plan.is_done(seen.body, seen.observed):
            return None
        outcome = await self._report(seen, choice, decision, weighed, writes, front)
        return outcome.before(look_at)

    def _neighbours(self, body: Manifest) -> Neighbours:
        """Return the other deployments, as the watches know them."""

        def observed(other: Manifest) -> Observed | None:
            try:
                known = self.cache.seen(*_key(other), self.now())
            except Exception:  # whatever somebody wrote into an object of another deployment: its own pass says it
                logger.exception("%s/%s cannot be read", *_key(other))
                return None
            return None if known is None else known.observed

        are_all = self.cache.is_complete(body["metadata"]["namespace"])
        return Neighbours(tuple(self.cache.bodies()), are_all, observed)

    async def _certified(self, seen: Seen, front: FrontPlan) -> tuple[FrontPlan, datetime | None]:
        """See to certificates, before anything is written that mounts them. Return when to look again, if early."""
        if self.certificates is None:
            return front, None
        if not front.needs_certificates:
            self.certificates.forget(_key(seen.body))
            return front, None
        standing = await self._ensured(seen, self.certificates)
        return replace(front, uncertified=standing.trouble), standing.look_at

    async def _ensured(self, seen: Seen, certificates: Certificates) -> Standing:
        standing = await certificates.ensure(seen.body, is_awaited=may_wait(seen.observed))
        for use, mark in standing.written.items():
            await tell(self.kube, seen.body, mounting(seen.observed, use), mark)
        return standing

    async def _renders_tls(self, seen: Seen) -> bool:
        """Tell whether groups that are rendered now speak TLS; of plain ones not before there are certificates.

        Groups that serve would be replaced by some that wait for a Secret, as where the right to it is missing.
        """
        if not renders_tls(seen.body, seen.observed, self._neighbours(seen.body), self.house):
            return False
        if self.certificates is None or not records.is_plain(seen.observed):
            return True
        return (await self._ensured(seen, self.certificates)).ends is not None

    def _will_render_tls(self, seen: Seen) -> bool:
        return will_render_tls(seen.body, seen.observed, self._neighbours(seen.body), self.house)

    async def _choose(self, seen: Seen, *, may_try: bool) -> Choice:
        """Return where the groups go: to the newest spec, or, where that is refused, to the last accepted one."""
        found = newest(seen.body, self.default_image, has_tls=await self._renders_tls(seen))
        if isinstance(found, Trouble):
            return Choice(records.restore(seen.body, seen.observed), found)
        target, waits = found.target(seen.observed), ""
        if target.is_adoption and is_new(target, seen.observed):
            # A paused rollout begins no adoption: it would hold its place among the fleet for as long.
            if found.deployment.spec.rollout.paused:
                target, waits = found.without_adoption(seen.observed), "waits until the rollout is resumed"
            elif found.is_automatic and self._will_render_tls(seen):
                # Groups would move twice: what is rendered a moment later is another one.
                target = found.without_adoption(seen.observed)
                waits = "waits until each pod of the gateway has its certificate for workers"
            elif not self.adoptions.begin(_key(seen.body)):
                target, waits = found.without_adoption(seen.observed), self.adoptions.waits_for()
        if not is_new(target, seen.observed):
            return Choice(target, adoption_waits=waits)
        if not may_try:
            return Choice(target, is_tried=False)
        refused = await try_target(self.kube, seen.body, target, seen.observed)
        if refused is None:
            return Choice(target, adoption_waits=waits)
        if target.is_adoption:  # nobody edited anything
            return Choice(found.without_adoption(seen.observed), adoption_waits=f"it was refused: {refused.message}")
        return Choice(records.restore(seen.body, seen.observed), refused)

    async def _weigh(self, observed: Observed, *, is_live: bool, needs_load: bool) -> Weighed:
        """Ask the workers: those that start, drain or fail for the status, all that serve where one has to go.

        A live pass also asks those that were never heard: it is the one that sees a group serve for the first time.
        """
        groups = [group for group in observed.groups.values() if group.leader is not None]
        ask = [group.name for group in groups if not group.is_available or group.leaving]
        reports = await self.workers.reports(groups, ask)
        unheard = [group.name for group in groups if group.name not in reports and group.name not in ask]
        if is_live and unheard:
            reports = await self.workers.reports(groups, unheard)
        if not needs_load:
            return Weighed(reports, {})
        fresh = await self.workers.fresh_reports(staying(observed))
        known = {name: report.in_flight_tokens for name, report in fresh.items()}
        return Weighed(reports | fresh, {name: tokens for name, tokens in known.items() if tokens is not None})

    def _decide(
        self, target: Target | None, observed: Observed, weighed: Weighed, refused: Collection[str] = ()
    ) -> Decision | None:
        if target is None:
            return None
        return decide(
            target,
            observed,
            self.now(),
            in_flight_tokens=weighed.in_flight_tokens,
            failed=[name for name, report in weighed.reports.items() if report.has_failed],
            served=[name for name, report in weighed.reports.items() if report.has_served],
            refused=refused,
        )

    def _measured(self, body: Manifest) -> Measured | None:
        measured = self.measurements.shown(*_key(body))
        return measured if measured is not None and measured.uid == body["metadata"]["uid"] else None

    async def _promise(self, seen: Seen, promised: Promises, weighed: Weighed) -> tuple[Weighed, bool]:
        """Put promises and the policy to workers that have others; return what these say then, and whether all took."""
        slo_less = lack(seen.observed, weighed.reports, promised)
        policy_less = lack_policy(seen.observed, weighed.reports, promised)
        if not slo_less and not policy_less:
            return weighed, True
        token = names.management_token(seen.body["metadata"]["uid"])
        puts = [self._put(seen.body, each, "promises", self._slo_to(each, token, promised)) for each in slo_less]
        puts += [self._put(seen.body, each, "policy", self._policy_to(each, token, promised)) for each in policy_less]
        answers = await asyncio.gather(*puts)
        taken = {answer.group for answer in answers if answer.is_taken}
        told = {group.name: group for group in (*slo_less, *policy_less)}
        of_slo, of_policy = answers[: len(slo_less)], answers[len(slo_less) :]
        return replace(
            weighed,
            reports=weighed.reports | await self.workers.reports(told.values(), taken),
            promises_refused={answer.group: answer.refusal for answer in of_slo if answer.refusal},
            policy_refused={answer.group: answer.refusal for answer in of_policy if answer.refusal},
        ), all(answer.is_taken for answer in answers)

    def _slo_to(self, group: ObservedGroup, token: str, promised: Promises) -> Awaitable[str | None]:
        assert promised.slo is not None
        return self.workers.put_slo(group, token, promised.slo.for_workers())

    def _policy_to(self, group: ObservedGroup, token: str, promised: Promises) -> Awaitable[str | None]:
        assert promised.policy is not None
        return self.workers.put_policy(group, token, promised.policy.for_workers())

    async def _put(self, body: Manifest, group: ObservedGroup, what: str, put: Awaitable[str | None]) -> Answer:
        try:
            digest = await put
        except NotTaken as error:
            is_not = "are not" if what == "promises" else "is not"
            logger.info("deployment=%s/%s %s %s taken: %s", *_key(body), what, is_not, error)
            return Answer(group.name, refusal=str(error) if isinstance(error, PutRefused) else "")
        if digest is None:
            path = names.POLICY_PATH if what == "policy" else names.SLO_PATH
            return Answer(group.name, refusal=f"its worker has no page {path}: the image is of another version")
        logger.info("deployment=%s/%s group=%s has taken %s %s", *_key(body), group.name, what, digest)
        return Answer(group.name, is_taken=True)

    async def _report(
        self, seen: Seen, choice: Choice, decision: Decision | None, weighed: Weighed, writes: Writes, front: FrontPlan
    ) -> Outcome:
        """Write the status and post Events of what changed, as this pass leaves things."""
        body, observed, now = seen.body, seen.observed, self.now()
        after = foresee(observed, writes.done)
        refused_group = await try_missing_pod(self.kube, body, observed, _untouched(observed, after), now)
        if refused_group is not None:
            after = replace(after, groups={**after.groups, refused_group.index: refused_group})
        promised, namespace = promises(body), body["metadata"]["namespace"]
        weighed, has_all_promises = await self._promise(seen, promised, weighed)
        told = await self.gateways.states(observed.gateway) if front.digest else {}
        states = {pod.name: told[pod.name] for pod in observed.gateway if pod.name in told and not pod.is_leaving}
        facts = Facts(
            name=name_of(body),
            namespace=namespace,
            generation=body["metadata"].get("generation", 0),
            now=now,
            target=choice.target,
            refused=choice.refused,
            decision=decision,
            observed=after,
            reports=weighed.reports,
            blocked=(*writes.blocked, *foreign_troubles(body, observed)),
            adoption_waits=choice.adoption_waits,
            previous=body.get("status") or {},
            slo=promised.slo,
            scaling=promised.scaling,
            slo_fault=promised.slo_fault,
            scaling_fault=promised.scaling_fault,
            is_measured=self.measurements.is_measured(promised.scaling, promised.slo),
            measured=self._measured(body),
            promises_refused=weighed.promises_refused,
            policy=promised.policy,
            policy_fault=promised.policy_fault,
            policy_refused=weighed.policy_refused,
            front=front,
            gateway=states,
            cut={pod: state.cut for pod, state in told.items() if state.cut is not None},
        )
        self.adoptions.note(_key(body), adopts=is_adopting(after) or _begins_to_adopt(choice.target, writes))
        is_tried_again = choice.refused is not None and choice.refused.reason in TRIED_AGAIN
        stands_still = bool(writes.blocked) or is_tried_again or refused_group is not None
        changed = writes.changed
        status = summarize(facts)
        events = of_acceptance(choice.target, observed) if writes.recorded and choice.target is not None else []
        events += of_steps(writes.done, observed)
        if await self.kube.patch_status(body, status):
            changed = changed or not stands_still  # what stands still in ever new words is asked ever more rarely
            events += transitions(facts.previous, status)
        for event in events:
            logger.info("deployment=%s/%s %s: %s", facts.namespace, facts.name, event.reason, event.message)
        await self.kube.post_events(body, events, now)
        return Outcome(
            changed=changed,
            settled=not changed
            and not stands_still
            and not choice.adoption_waits
            and has_all_promises
            and all(state.config_digest == front.digest or state.config_fault for state in states.values())
            and _is_settled(facts),
            due_at=decision.waits_until if decision is not None else None,
        )


def _is_going(body: Manifest) -> bool:
    return "deletionTimestamp" in body["metadata"]


def _key(body: Manifest) -> tuple[str, str]:
    return body["metadata"]["namespace"], name_of(body)


def _untouched(observed: Observed, after: Observed) -> list[ObservedGroup]:
    return [group for index, group in after.groups.items() if group == observed.groups.get(index)]


def _begins_to_adopt(target: Target | None, writes: Writes) -> bool:
    return target is not None and target.is_adopted and writes.recorded


def _is_settled(facts: Facts) -> bool:
    """Tell whether nothing is on its way: what is still to come would show up in no event of the cluster."""
    if facts.outdated and not (facts.target is not None and facts.target.policy.paused):
        return False
    return not facts.goers and all(group.is_available for group in facts.members)
