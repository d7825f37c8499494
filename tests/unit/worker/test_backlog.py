"""Messages of the engine that have piled up are taken one a turn of the loop, so streams are written meanwhile."""

import asyncio
from pathlib import Path

import msgspec
import zmq

from glm_worker.messages import EngineLimits, EngineReady, GenerationStarting, StepDone
from glm_worker.server.flights.generations import Generations
from unit.worker.flights_world import World

DEADLINE_S = 60.0
STEPS = 300


def a_step(number: int) -> bytes:
    done = StepDone(
        generation="g",
        outputs=[],
        step=number,
        began_s=0.0,
        num_running=0,
        num_waiting=0,
        num_tokens_waiting=0,
        kv_blocks_used=0,
        num_preemptions=0,
    )
    return msgspec.msgpack.encode(done)


async def test_others_have_a_turn_between_two_messages_of_a_backlog(tmp_path: Path) -> None:
    world, endpoint = World(), f"ipc://{tmp_path}/engine.sock"
    generations = Generations(world.flights, lambda _: None)
    await generations.start(GenerationStarting("g", endpoint))
    with zmq.Context() as context, context.socket(zmq.PAIR) as engine:
        engine.set(zmq.LINGER, 0)
        engine.set_hwm(0)
        engine.connect(endpoint)
        limits = EngineLimits(max_model_len=64, num_blocks=100, block_size=16)
        engine.send(msgspec.msgpack.encode(EngineReady(generation="g", limits=limits, load_seconds=0.0)))
        for number in range(STEPS):
            engine.send(a_step(number))
        seen = set[int]()
        async with asyncio.timeout(DEADLINE_S):
            while STEPS - 1 not in seen:
                await asyncio.sleep(0)
                step = world.flights._last_step
                seen |= set() if step is None else {step.step}
    assert seen == set(range(STEPS))
    generations.close()
