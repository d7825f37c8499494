"""A pod alone, whose zygote is killed while a generation is told to end; prints what the pod says of it as JSON.

A process of its own: a supervisor's children are reaped by one handler, which would reap a test run's, too. Settings in
the environment. Argument: the process to die with.
"""

import asyncio
import json
import socket
import sys
from collections.abc import Callable, Mapping, Sequence

from glm_worker.settings import WorkerSettings, read_settings
from glm_worker.supervisor.children.children import Child, Children
from glm_worker.supervisor.children.process import die_with_parent
from glm_worker.supervisor.evidence.causes import Failure
from glm_worker.supervisor.group.pod import Pod
from glm_worker.supervisor.group.protocol import StartGeneration
from glm_worker.supervisor.rundir import RunDir

KILL_LIMIT_S = 5.0


class Recording(Children):
    """Remembers the last child."""

    last: Child

    def spawn_python(
        self, name: str, module: str, arguments: Sequence[str], environment: Mapping[str, str], link: socket.socket
    ) -> Child:
        self.last = super().spawn_python(name, module, arguments, environment, link)
        return self.last


async def until(is_true: Callable[[], bool], changed: asyncio.Event) -> None:
    while not is_true():
        changed.clear()
        await changed.wait()


async def end_as_the_zygote_dies(settings: WorkerSettings) -> dict[str, list[object]]:
    """End a generation in the very turn of the loop in which its zygote's death is seen."""
    children, run_dir = Recording(), RunDir.create(settings.run_dir, "life")
    told: list[object] = []
    changed = asyncio.Event()

    def tell(generation: str | None, failure: Failure) -> None:
        told.append([generation, failure.cause.message])

    pod = Pod(settings, children, run_dir, "integration.fake_ranks:rest", on_change=changed.set, on_failure=tell)
    keeping = asyncio.create_task(pod.keep_zygote())
    try:
        await until(lambda: pod.can_start, changed)
        pod.start(StartGeneration("g-1", "secret", store_port=1, channel_port=2))
        zygote = children.last
        zygote.kill()
        while not zygote.ended.done():  # noqa: ASYNC110 - an Event would wake us turns later
            await asyncio.sleep(0)
        failures = [failure.cause.message for failure in await pod.end()]
        await until(lambda: pod.can_start, changed)  # with the next zygote: all is told by then
        return {"failures": [*failures], "told": told}
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})
        await children.kill_all(KILL_LIMIT_S)
        children.close()
        run_dir.close()


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    print(json.dumps(asyncio.run(end_as_the_zygote_dies(read_settings()))))
