"""The life of a rank: meet the others, load, agree on the KV blocks, serve. The zygote forks into run_rank.

Who serves in a process of its own (offline/) takes rank_of, and has the rank turn as long as it likes.
"""

import logging
import time
from typing import NoReturn

import torch

from glm_edge.kept_memory import keep_freed_memory
from glm_worker.assignment import RankAssignment
from glm_worker.engine.batch import StepRoom
from glm_worker.engine.channel import FollowerChannel, LeaderChannel, step_endpoint
from glm_worker.engine.engine import Engine
from glm_worker.engine.follow import FollowerRank
from glm_worker.engine.grammars import Grammars
from glm_worker.engine.intake import Intake
from glm_worker.engine.lead import LeadRank
from glm_worker.engine.look_ahead import DeviceDraws, looks_ahead
from glm_worker.engine.memory import cache_bytes, max_model_len, num_blocks_that_fit, room_on_gpu
from glm_worker.engine.numerics import kv_dtype, threads_of_rank, torch_dtype
from glm_worker.engine.probe import is_deterministic
from glm_worker.engine.runner import Runner
from glm_worker.engine.sampling.sampler import Sampler
from glm_worker.engine.server_link import ServerLink
from glm_worker.errors import EngineFailed
from glm_worker.heartbeat import RankSlot
from glm_worker.kernels.cpu.sample import sample_kernel
from glm_worker.messages import EngineLimits, EngineReady
from glm_worker.model.config import ModelConfig
from glm_worker.model.decode_graphs import GraphRoom
from glm_worker.model.grammar_vocabulary import grammar_vocabulary
from glm_worker.model.kv_cache import KVCache
from glm_worker.model.weights import load_model
from glm_worker.models import resolve
from glm_worker.parallel.device import rank_device
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh
from glm_worker.scheduler.block_manager import blocks_for
from glm_worker.scheduler.limits import SchedulerLimits
from glm_worker.scheduler.scheduler import Scheduler
from glm_worker.settings import WorkerSettings

KEPT_BYTES, LARGE_BYTES = 2**30, 2**29
"""Of memory that a rank on a CPU has freed and keeps. A step's logits and activations are tens of MB, which the system
would clear anew in every step: 39 MB of logits take 18 ms that way, and 2 ms where they lay before."""

_log = logging.getLogger("glm_worker.rank")


def run_rank(settings: WorkerSettings, assignment: RankAssignment, slot: RankSlot) -> NoReturn:
    """Serve as one rank of a generation until killed.

    Raises ConfigError for a model or device that can never work, EngineFailed when this rank cannot go on. The caller
    puts the message into the slot and ends the process.
    """
    if settings.device == "cpu":
        keep_freed_memory(KEPT_BYTES, LARGE_BYTES)
    rank_of(settings, assignment, slot).serve()


def rank_of(settings: WorkerSettings, assignment: RankAssignment, slot: RankSlot) -> LeadRank | FollowerRank:
    """Return this rank of a generation, loaded and known to the others and to the server. Collective over all ranks.

    Raises as run_rank does.
    """
    began = time.monotonic()
    threads = threads_of_rank(settings)
    torch.set_num_threads(threads)
    device = rank_device(settings.device, assignment.local_rank)
    mesh = Mesh(assignment.world_size, settings.tensor_parallel, assignment.rank)
    folder = resolve(settings.model)
    config = ModelConfig.read(folder)
    dtype = torch_dtype(settings, config)
    model_len = max_model_len(settings, config)
    channel = _open_channel(settings, assignment)
    comm = Communicator.connect(assignment, mesh, device, slot)
    fixed_order = settings.deterministic and device.type == "cpu"
    model = load_model(folder, config, mesh, comm, device, dtype, slot.loading, fixed_order=fixed_order)
    model.use_kernels(threads)
    if settings.cuda_kernels == "triton":
        model.use_triton()
    by_torch = model.kernels == "torch"
    if not by_torch:
        torch.set_num_threads(1)  # it has little left to do, and its threads would be in the way of the kernels'

    of_cache = kv_dtype(settings, dtype)
    num_bytes = cache_bytes(settings, lambda: room_on_gpu(model, mesh, comm, settings, model_len, of_cache, device))
    bytes_per_block = KVCache.bytes_per_block(config, mesh, settings.block_size, of_cache)
    num_blocks = channel.agree(num_blocks_that_fit(settings, num_bytes, bytes_per_block, model_len))
    kv_cache = KVCache.allocate(config, mesh, num_blocks, settings.block_size, of_cache, device)
    room = StepRoom(settings.max_batch_tokens, settings.max_num_seqs, blocks_for(model_len, settings.block_size))
    is_ahead = looks_ahead(settings)
    samples = is_ahead or assignment.rank == 0
    kernel = sample_kernel(threads) if samples and device.type == "cpu" else None
    draws = DeviceDraws(kernel) if is_ahead else None
    runner = Runner(model, kv_cache, comm, device, slot, room, draws)
    runner.warm_up()
    model.capture_graphs(kv_cache, GraphRoom(room.num_sequences, room.num_blocks, settings.block_size), slot.loading)
    limits = SchedulerLimits(
        max_model_len=model_len,
        max_batch_tokens=settings.max_batch_tokens,
        max_num_seqs=settings.max_num_seqs,
        num_blocks=num_blocks,
        block_size=settings.block_size,
    )
    # Threads of torch divide large steps at places of their own, which a probe of small ones does not see
    deterministic = (
        fixed_order and not (by_torch and threads > 1) and is_deterministic(runner, limits, config.vocab_size)
    )
    engine = Engine(Scheduler(limits, max_uncommitted=2 if is_ahead else 1), runner, looks_ahead=is_ahead)
    load_seconds = time.monotonic() - began
    _log.info("ready after %.2f s with %d KV blocks of %d tokens", load_seconds, num_blocks, settings.block_size)
    if fixed_order and not deterministic:
        _log.warning(
            "answers are exact up to rounding only: this CPU or several threads divide sums by their neighbours"
        )
    if is_ahead:
        _log.warning("steps are launched ahead of those before: tests on CPUs have seen it, and no GPU yet")
    slot.ready()
    if isinstance(channel, FollowerChannel):
        return FollowerRank(engine, channel, slot, assignment.rank)
    server = _connect_server(assignment, slot, limits, load_seconds, deterministic=deterministic, kernels=model.kernels)
    sampler = Sampler(kernel)
    grammars = Grammars(lambda: grammar_vocabulary(folder))
    grammars.warm_up()
    intake = Intake(grammars, sampler, config.vocab_size)
    return LeadRank(engine, sampler, intake, server, channel, slot, assignment.generation)


def _open_channel(settings: WorkerSettings, assignment: RankAssignment) -> LeaderChannel | FollowerChannel:
    secret = assignment.secret
    if assignment.rank == 0:
        return LeaderChannel(step_endpoint(assignment, settings.host), secret, assignment.world_size)
    return FollowerChannel(step_endpoint(assignment, assignment.leader_host), secret, assignment.rank)


def _connect_server(
    assignment: RankAssignment,
    slot: RankSlot,
    limits: SchedulerLimits,
    load_seconds: float,
    *,
    deterministic: bool,
    kernels: str,
) -> ServerLink:
    if assignment.server_endpoint is None:
        raise EngineFailed("rank 0 was not told where the server waits")
    server = ServerLink(assignment.server_endpoint, assignment.generation, slot)
    engine_limits = EngineLimits(
        max_model_len=limits.max_model_len,
        num_blocks=limits.num_blocks,
        block_size=limits.block_size,
        max_num_seqs=limits.max_num_seqs,
    )
    server.send(
        EngineReady(
            generation=assignment.generation,
            limits=engine_limits,
            load_seconds=load_seconds,
            deterministic=deterministic,
            kernels=kernels,
        )
    )
    return server
