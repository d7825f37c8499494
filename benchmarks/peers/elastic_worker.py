"""One rank of glm-nano under torch's elastic agent, for comparison with our supervisor (started by recovery.py).

What a torchrun job would do to serve: meet by the agent's rendezvous (env://), load this rank's share of the same
checkpoint with the same code as `glm-worker`, then answer. Rank 0 answers each TCP connection with one greedy answer;
before each, all ranks meet in a collective, and each step has the same collectives as in `glm-worker`.
"""

import argparse
import os
import socket
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from glm_worker.engine.engine import Engine
from glm_worker.engine.runner import Runner
from glm_worker.engine.sampling.draw import draw
from glm_worker.messages import Submit
from glm_worker.model.config import ModelConfig
from glm_worker.model.kv_cache import KVCache
from glm_worker.model.weights import load_model
from glm_worker.models import resolve
from glm_worker.parallel.device import rank_device
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Axis, Mesh
from glm_worker.request import EngineRequest, SamplingParams
from glm_worker.scheduler.limits import SchedulerLimits
from glm_worker.scheduler.scheduler import Scheduler
from glm_worker.server.checkpoint import Checkpoint

BLOCK_SIZE = 16
NUM_BLOCKS = 4096  # as many as `glm-worker` makes for this model


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--question", required=True)
    parser.add_argument("--port", type=int, required=True, help="where rank 0 answers")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Short, or an attempt that meets what an earlier one left in the agent's store hangs for the default 30 minutes.
    device = rank_device(arguments.device, int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(seconds=60))
    folder = resolve(arguments.model)
    engine = make_engine(folder, device)
    checkpoint = Checkpoint.read(folder, name="", max_model_len=0)
    messages = [{"role": "user", "content": arguments.question}]
    prompt = checkpoint.tokenizer.encode(checkpoint.template.render(messages, ()))
    server = socket.create_server(("127.0.0.1", arguments.port)) if dist.get_rank() == 0 else None
    number = 0
    while True:
        connection = server.accept()[0] if server is not None else None
        dist.barrier()  # the others wait here for a question
        number += 1
        request = EngineRequest(
            request_id=str(number),
            prompt_token_ids=prompt,
            max_tokens=256,
            stop_token_ids=list(checkpoint.stop_token_ids),
            sampling=SamplingParams(temperature=0.0),
        )
        text = b"".join(checkpoint.tokenizer.bytes_of(token) for token in run(engine, request))
        if connection is not None:
            with connection:
                connection.sendall(text)


def make_engine(folder: Path, device: torch.device) -> Engine:
    """Load this rank's share. Collective."""
    config = ModelConfig.read(folder)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    mesh = Mesh(dist.get_world_size(), 1, dist.get_rank())
    world = dist.group.WORLD
    assert world is not None
    comm = Communicator(mesh, None, {Axis.EP: world})
    model = load_model(folder, config, mesh, comm, device, dtype)
    kv_cache = KVCache.allocate(config, mesh, NUM_BLOCKS, BLOCK_SIZE, dtype, device)
    limits = SchedulerLimits(
        max_model_len=config.max_position_embeddings,
        max_batch_tokens=2048,
        max_num_seqs=64,
        num_blocks=NUM_BLOCKS,
        block_size=BLOCK_SIZE,
    )
    return Engine(Scheduler(limits), Runner(model, kv_cache, comm, device))


def run(engine: Engine, request: EngineRequest) -> list[int]:
    """Return the answer's tokens. Collective; logits are equal everywhere, so each rank samples for itself."""
    engine.obey([Submit(generation="", request=request)])
    tokens: list[int] = []
    while engine.scheduler.has_work:
        plan = engine.plan()
        engine.launch(plan)
        logits_SV = engine.wait()
        ids = draw(logits_SV, [each.sampling for each in plan.sampled], [each.end for each in plan.sampled]).token_ids
        for output in engine.commit([[token_id] for token_id in ids]):
            tokens += output.token_ids
    return tokens


if __name__ == "__main__":
    main()
