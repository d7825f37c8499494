"""Our engine at some work: scheduler, runner and sampler as in a rank, without server and without HTTP.

Every answer is greedy. Prefill ends when every request has its first token; the tokens after it are decode. A first
round of each work is not counted. Prints a JSON line a work.
"""

import os
import time
from pathlib import Path

import torch
from engines.work import Speed, Work, of_command_line, tell

from glm_edge.kept_memory import keep_freed_memory
from glm_worker.engine.batch import StepRoom
from glm_worker.engine.engine import Engine
from glm_worker.engine.runner import Runner
from glm_worker.engine.sampling.sampler import Sampler
from glm_worker.kernels.cpu.sample import sample_kernel
from glm_worker.messages import Submit, ToEngine
from glm_worker.model.config import ModelConfig
from glm_worker.model.glm_moe import GlmMoe
from glm_worker.model.kv_cache import KVCache
from glm_worker.model.weights import load_model
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh
from glm_worker.request import EngineRequest, SamplingParams
from glm_worker.scheduler.block_manager import blocks_for
from glm_worker.scheduler.limits import SchedulerLimits
from glm_worker.scheduler.scheduler import Scheduler

BLOCK_SIZE, MAX_BATCH_TOKENS = 16, 2048
KEPT_BYTES, LARGE_BYTES = 2**30, 2**29  # as a rank's


def load(folder: Path, dtype: torch.dtype, threads: int) -> GlmMoe:
    """Return the model as a rank has it, of kernels if there are any."""
    config, cpu = ModelConfig.read(folder), torch.device("cpu")
    model = load_model(folder, config, Mesh(), Communicator.single(), cpu, dtype, fixed_order=True)
    torch.set_num_threads(threads)
    model.use_kernels(threads)
    if model.kernels != "torch":
        torch.set_num_threads(1)
    return model


def engine_for(model: GlmMoe, dtype: torch.dtype, work: Work) -> Engine:
    length = work.num_prompt + work.num_answer + 1
    num_blocks = work.batch * blocks_for(length, BLOCK_SIZE) + 1
    cpu = torch.device("cpu")
    kv_cache = KVCache.allocate(model.config, Mesh(), num_blocks, BLOCK_SIZE, dtype, cpu)
    room = StepRoom(MAX_BATCH_TOKENS, work.batch, blocks_for(length, BLOCK_SIZE))
    limits = SchedulerLimits(
        max_model_len=length,
        max_batch_tokens=MAX_BATCH_TOKENS,
        max_num_seqs=work.batch,
        num_blocks=num_blocks,
        block_size=BLOCK_SIZE,
    )
    return Engine(Scheduler(limits), Runner(model, kv_cache, Communicator.single(), cpu, room=room))


def measure(model: GlmMoe, dtype: torch.dtype, threads: int, work: Work) -> Speed:
    """Run the work once to warm up and once for its speed, with other prompts."""
    engine, sampler = engine_for(model, dtype, work), Sampler(sample_kernel(threads))
    generator = torch.Generator().manual_seed(work.batch)
    for name in ("warm-up", "counted"):
        prompts = torch.randint(3, model.config.vocab_size, (work.batch, work.num_prompt), generator=generator).tolist()
        requests: list[ToEngine] = [
            Submit(
                "bench",
                EngineRequest(
                    request_id=f"{name}-{number}",
                    prompt_token_ids=prompt,
                    max_tokens=work.num_answer + 1,
                    stop_token_ids=[],
                    sampling=SamplingParams(temperature=0.0),
                ),
            )
            for number, prompt in enumerate(prompts)
        ]
        began_s = time.perf_counter()
        engine.obey(requests)
        without_first, prefilled_s = set(range(work.batch)), began_s
        while engine.scheduler.has_work:
            engine.launch(engine.plan())
            logits_SV = engine.wait()
            sampled = sampler.sample(logits_SV, engine.scheduler.sampled)
            outputs = engine.commit([[token_id] for token_id in sampled.token_ids])
            if without_first:
                without_first -= {int(output.request_id.rpartition("-")[2]) for output in outputs}
                prefilled_s = time.perf_counter()
        ended_s = time.perf_counter()
    num_prompt, num_answer = work.batch * work.num_prompt, work.batch * work.num_answer
    return Speed(work, num_prompt / (prefilled_s - began_s), num_answer / (ended_s - prefilled_s))


def main() -> None:
    folder, name, threads, works = of_command_line(__doc__)
    keep_freed_memory(KEPT_BYTES, LARGE_BYTES)
    dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
    torch.set_num_threads(threads)
    model = load(folder, dtype, threads)
    if isa := os.environ.get("GLM_CPU_ISA"):
        assert isa in model.kernels, f"{model.kernels} computes, not {isa}"
    for work in works:
        tell(measure(model, dtype, threads, work), kernels=model.kernels)


if __name__ == "__main__":
    main()
