"""What the process does that `glm local up` leaves behind: the operator's autoscaler for processes of this machine.

It asks the workers, or Prometheus, decides by the same law as in a cluster, and starts and stops groups. It puts the
promises and the policy of the spec to the workers, and tells the gateway which groups there are. What has died it
starts again, later and later where that does not help. `up` and `down` end it before they change anything, so the
folder's lock is held here only for moments.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from glm_operator import names
from glm_operator.api.spec import GLMDeployment, parse_deployment
from glm_operator.autoscale.constants import RECENT_S
from glm_operator.autoscale.decide import Memory, decide
from glm_operator.autoscale.decision import Decision, Situation
from glm_operator.autoscale.reading import read
from glm_operator.autoscale.signals import Signals
from glm_operator.cluster.metrics.reading import Reading, Target
from glm_operator.cluster.metrics.sources import Sources
from glm_operator.layout import Layout, plan
from glm_operator.local import crashes, live, processes, scaling
from glm_operator.local.crashes import Crash, Seen
from glm_operator.local.down import AFTER_DRAIN_S, stop_pods
from glm_operator.local.errors import LocalError
from glm_operator.local.gateway import front
from glm_operator.local.gateway import process as gateway_process
from glm_operator.local.gateway.view import StateView
from glm_operator.local.management import Management
from glm_operator.local.observed import Group, asked, gateway_of, groups_of
from glm_operator.local.pods import index_of
from glm_operator.local.processes import Process
from glm_operator.local.state import DeploymentState, StateFolder
from glm_operator.local.up import bring_up
from glm_operator.render import render

logger = logging.getLogger("glm_operator.local")

PERIOD_S = 1.0
"""Between two looks. Asking a few processes of this machine costs nothing worth saving."""


class Replaced(Exception):
    """The state names another controller, or none."""


@dataclass
class Controller:
    """Looks at one deployment again and again."""

    folder: StateFolder
    name: str
    token: str
    program: Sequence[str]
    sources: Sources
    management: Management
    now: Callable[[], float] = time.time
    memory: Memory = field(default_factory=Memory)
    history: list[scaling.GroupsChange] = field(default_factory=list)
    leaving: dict[int, float] = field(default_factory=dict)  # by index: when its requests must have ended
    marked: dict[int, float] = field(default_factory=dict)  # by index: since when the gateway is to send it nothing new
    untold: set[tuple[str, str]] = field(default_factory=set)  # tokens of pods that do not take something, and what

    async def run(self, period_s: float = PERIOD_S) -> None:
        """Look until the state names another controller."""
        while True:
            begun_s = time.monotonic()
            try:
                await self.look()
            except Replaced:
                logger.info("%s is somebody else's now", self.name)
                return
            except LocalError as error:
                logger.warning("%s: %s", self.name, error)
            except Exception:  # the outermost loop: nobody would start this process again
                logger.exception("%s: the look failed", self.name)
            await asyncio.sleep(max(0.0, period_s - (time.monotonic() - begun_s)))

    async def look(self) -> None:
        """Measure, decide, and make what runs equal to what was decided."""
        state = self._state()
        deployment = parse_deployment(state.body)
        groups = await asyncio.to_thread(groups_of, state, self.management)
        gateway = await asyncio.to_thread(gateway_of, state, self.management)
        for group in groups:  # that another controller has told
            if group.name in state.leaving:
                self.leaving.setdefault(group.index, time.monotonic() + group.leader.drain_s + AFTER_DRAIN_S)
                self.marked.setdefault(group.index, time.monotonic())
        await asyncio.to_thread(self._promise, deployment, groups)
        staying = [group for group in groups if group.index not in self.leaving]
        rules = deployment.spec.scaling
        reading = await self._read(deployment, staying)
        is_asked = rules is not None and rules.mode in ("Active", "Observe")
        states = self.folder.deployments() if is_asked else []
        demand = await asyncio.to_thread(asked, states, self.name, self.management)
        serving = frozenset(group.name for group in staying if group.is_ready)
        warm_up_s = rules.warm_up_seconds if rules is not None else 0
        signals = read(reading.series, reading.latencies, deployment.spec.slo, serving, self.now(), warm_up_s)
        signals = replace(signals, asked=demand)
        began_s = self.memory.began_s
        if reading.source == "Workers" and began_s is not None and self.now() - began_s >= RECENT_S:
            signals = scaling.newest_arrivals(signals)  # every second; a Prometheus scrapes when it does
        decision, memory = self._decide(deployment, staying, signals)
        wanted = len(staying)
        if decision is not None and rules is not None and rules.mode == "Active":
            wanted = decision.desired
        indices = self._indices(groups, staying, wanted, signals)
        is_done = await self._carry_out(deployment, groups, gateway, indices)
        if is_done:  # else the law would take its own number, not reached, for somebody's edit
            self.memory = memory
        if decision is not None and is_done and wanted != len(staying):
            self.history = scaling.changed(self.history, decision, self.now())
            logger.info("%s: %d -> %d groups: %s", self.name, len(staying), wanted, decision.message)
        if decision is not None:
            self._tell(deployment, decision, reading, signals, wanted if is_done else len(staying))

    def _state(self) -> DeploymentState:
        for state in self.folder.deployments():
            if state.name == self.name and state.controller is not None and state.controller.token == self.token:
                return state
        raise Replaced

    def _promise(self, deployment: GLMDeployment, groups: Sequence[Group]) -> None:
        """Put the promises and the policy of the spec to every group that has others."""
        for group in groups:
            if group.report is None:
                continue
            for what in live.tell(self.management, deployment, group.leader.address, group.report):
                if (group.leader.token, what) not in self.untold:  # once, not at each look
                    logger.warning("%s does not take %s; it has what it had before", group.name, what)
                    self.untold.add((group.leader.token, what))

    async def _read(self, deployment: GLMDeployment, groups: Sequence[Group]) -> Reading:
        if not groups:
            return Reading(at_s=self.now(), source="Workers")  # of none nothing is missed
        targets = [
            Target(
                group.name,
                f"http://{group.leader.address}:{names.MANAGEMENT_PORT}{names.METRICS_PATH}",
                serves=group.is_ready,
            )
            for group in groups
            if group.is_alive
        ]
        spec = deployment.spec
        on_missing = spec.scaling.on_missing_metrics if spec.scaling is not None else "Fallback"
        return await self.sources.read(deployment.namespace, deployment.name, targets, spec.slo, on_missing)

    def _decide(
        self, deployment: GLMDeployment, groups: Sequence[Group], signals: Signals
    ) -> tuple[Decision | None, Memory]:
        rules = deployment.spec.scaling
        if rules is None or rules.mode not in ("Active", "Observe") or not (groups or rules.may_be_zero):
            return None, self.memory
        serving = sum(group.is_ready for group in groups)
        if groups and self.memory.at_s is None and not serving and all(group.is_alive for group in groups):
            # `up` has started them. The law would take them for an order of its own, and wait for the effect of that.
            return None, self.memory
        layout = plan(deployment)
        situation = Situation(
            spec_groups=len(groups),
            serving=serving,
            starting=len(groups) - serving,
            gpus_per_group=layout.gpus_per_group if isinstance(layout, Layout) else 0,
        )
        return decide(rules, deployment.spec.slo, situation, signals, self.memory, self.now())

    def _indices(self, groups: Sequence[Group], staying: Sequence[Group], wanted: int, signals: Signals) -> list[int]:
        load = {index_of(name): group.in_flight_tokens for name, group in signals.groups.items()}
        load |= {group.index: -1.0 for group in staying if not group.is_ready}  # one that serves nobody goes first
        members = [group.index for group in staying]
        return scaling.indices_after(members, [group.index for group in groups], wanted, load)

    async def _carry_out(
        self,
        deployment: GLMDeployment,
        groups: Sequence[Group],
        gateway: StateView | None,
        indices: Sequence[int],
    ) -> bool:
        """Tell groups that go to finish, and bring up what is missing or died; return whether that was possible.

        What is told goes by itself. Nothing is waited for here: what cannot be done now is done by a later look.
        """
        try:
            with self.folder.locked():
                await asyncio.to_thread(self._change, deployment, groups, gateway, indices)
        except LocalError as error:  # another command is at work, or a port is taken
            logger.warning("%s: %s", self.name, error)
            return False
        return True

    def _change(
        self,
        deployment: GLMDeployment,
        groups: Sequence[Group],
        gateway: StateView | None,
        indices: Sequence[int],
    ) -> None:
        now_s = time.monotonic()
        state = self._mark(self._state(), groups, gateway, indices, now_s)
        ready = {group.name for group in groups if group.is_ready}
        self._keep_gateway(state, deployment, ready)
        told = [group for group in groups if group.index in self.leaving]
        gone = [group for group in told if self._is_gone(group, now_s)]
        finishing = [group.name for group in told if group not in gone]
        resting = self._resting(groups, state.crashes)
        due = [index for index in indices if index not in resting]
        is_dead = any(group.index in due and not group.is_alive for group in groups)
        is_new = not set(due) <= {group.index for group in groups}
        if not (gone or is_dead or is_new):
            return
        stop_pods([pod for group in gone for pod in group.pods], deadline_s=0.0)  # they have had their time
        layout = plan(deployment)
        assert isinstance(layout, Layout), layout  # `up` has planned it
        untouched = [*finishing, *resting.values()]
        made = bring_up(
            self.folder,
            self.name,
            render(deployment, layout, due),
            self.program,
            untouched=untouched,
            awaits_policy=not deployment.spec.policy.is_default,
        )
        stopping = [group for group in state.stopping if group in finishing]
        state = msgspec.structs.replace(made.state, leaving=finishing, stopping=stopping)
        self.folder.write(state)
        front.write_groups(self.folder, state, ready, finishing)
        for group in gone:
            del self.leaving[group.index]
            self.marked.pop(group.index, None)

    def _mark(
        self,
        state: DeploymentState,
        groups: Sequence[Group],
        gateway: StateView | None,
        indices: Sequence[int],
        now_s: float,
    ) -> DeploymentState:
        """Record who leaves and what has died; tell those that leave to end, once they get nothing new."""
        for group in groups:
            if group.index not in indices and group.index not in self.leaving:
                drain_s = max(pod.drain_s for pod in group.pods)
                self.leaving[group.index] = now_s + drain_s + AFTER_DRAIN_S
                self.marked[group.index] = now_s
        told = [group for group in groups if group.index in self.leaving]
        ending = [
            group
            for group in told
            if group.name not in state.stopping and self._gets_nothing_new(group, state, gateway, now_s)
        ]
        leaving = [group.name for group in told]
        stopping = [*(name for name in leaving if name in state.stopping), *(group.name for group in ending)]
        fallen = self._crashes(state, [group for group in groups if group not in told], gateway)
        marked = msgspec.structs.replace(state, leaving=leaving, stopping=stopping, crashes=fallen)
        if marked != state:  # recorded first: `up` must not count on who leaves
            self.folder.write(marked)
        for pod in (pod for group in ending for pod in group.pods):
            processes.terminate(Process(pod.pid, pod.start_ticks))
        return marked

    def _gets_nothing_new(self, group: Group, state: DeploymentState, gateway: StateView | None, now_s: float) -> bool:
        """Whether the gateway has seen that a group leaves, or had the time to."""
        if state.gateway is None or gateway is None:  # it asks nobody
            return True
        marked_s = self.marked.get(group.index, now_s)
        return now_s - marked_s > front.NOTICE_S or not gateway.sends_to(group.name)

    def _keep_gateway(self, state: DeploymentState, deployment: GLMDeployment, ready: Collection[str]) -> None:
        """Tell gateways what there is, and start the own one again if it has died."""
        front.write_groups(self.folder, state, ready, state.leaving)
        if (record := state.gateway) is None:
            return
        front.follow_others(self.folder, state, deployment)
        if gateway_process.is_alive(record) or record.name in crashes.resting(state.crashes, self.now()):
            return
        try:
            front.bring_up(self.folder, state, deployment)
        except LocalError as error:  # its groups serve on
            logger.warning("the gateway of %s cannot be started: %s", self.name, error)

    def _crashes(self, state: DeploymentState, groups: Sequence[Group], gateway: StateView | None) -> list[Crash]:
        """Return which pods have ended by themselves, and log those that did so since the last look."""
        seen = [
            Seen(pod.name, pod.token, processes.is_alive(Process(pod.pid, pod.start_ticks)), group.is_ready)
            for group in groups
            for pod in group.pods
        ]
        if state.gateway is not None:
            record, is_alive = state.gateway, gateway_process.is_alive(state.gateway)
            seen.append(Seen(record.name, record.token, is_alive, serves=gateway is not None))
        found, known = crashes.looked(state.crashes, seen, self.now()), {crash.token for crash in state.crashes}
        for crash in found:
            if crash.token not in known:
                wait = f"in {pause:.0f} s" if (pause := crashes.pause_s(crash.count)) else "at once"
                logger.warning("%s ended by itself, %d in a row; it is started again %s", crash.pod, crash.count, wait)
        return found

    def _resting(self, groups: Sequence[Group], fallen: Sequence[Crash]) -> dict[int, str]:
        """Return index and name of the groups with a pod that is not started yet."""
        pods = crashes.resting(fallen, self.now())
        return {group.index: group.name for group in groups if any(record.name in pods for record in group.pods)}

    def _is_gone(self, group: Group, now_s: float) -> bool:
        """Whether all of a group has ended, or has had its time: then what is left of it is killed."""
        is_over = not any(processes.is_alive(Process(pod.pid, pod.start_ticks)) for pod in group.pods)
        return is_over or now_s > self.leaving[group.index]

    def _tell(
        self, deployment: GLMDeployment, decision: Decision, reading: Reading, signals: Signals, groups: int
    ) -> None:
        assert deployment.spec.scaling is not None
        mode, trouble = deployment.spec.scaling.mode, reading.trouble.message if reading.trouble is not None else ""
        view = scaling.view_of(mode, decision, signals, groups, self.history)
        view = msgspec.structs.replace(view, source=reading.source, trouble=trouble)
        scaling.write(self.folder.scaling_file(self.name), view)
