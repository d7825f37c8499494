"""The command: what is compared, in which order, and what becomes of it."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from glm_worker.check import prompts as prompts_of
from glm_worker.check.bounds import bounds_of
from glm_worker.check.judge import judged
from glm_worker.check.oracle import Oracle
from glm_worker.check.ours import check_names, computed_here
from glm_worker.check.report import Report
from glm_worker.check.room import free_bytes_of, layers_that_fit, leading_layers, weights_bytes
from glm_worker.engine.numerics import kv_dtype, threads_of_rank, torch_dtype
from glm_worker.errors import ConfigError, RequestRefused
from glm_worker.model.config import ModelConfig
from glm_worker.models import resolve
from glm_worker.parallel.device import rank_device
from glm_worker.server.checkpoint import Checkpoint
from glm_worker.settings import WorkerSettings

EXIT_SAME, EXIT_DIFFERS, EXIT_UNREADABLE = 0, 1, 2
WORTH_TELLING_BYTES = 2**30
NUM_GENERATED = 8  # of each prompt: decoding is another path than prefill
Say = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """reference: what transformers reads, None: the same. num_layers None: as many as fit into memory.

    prompt_file None: prompts of our own.
    """

    reference: str | None = None
    num_layers: int | None = None
    prompt_file: Path | None = None
    as_json: bool = False


def check(settings: WorkerSettings, options: CheckOptions) -> int:
    """Compare, print, and return the exit code. What goes on meanwhile is told on stderr."""
    try:
        report = compared(settings, options, lambda what: sys.stderr.write(f"{what}\n"))
    except (ConfigError, RequestRefused) as error:
        sys.stderr.write(f"glm-worker: {error}\n")
        return EXIT_UNREADABLE
    sys.stdout.write(f"{report.json if options.as_json else report.text}\n")
    return EXIT_SAME if report.verdict.is_within else EXIT_DIFFERS


def compared(settings: WorkerSettings, options: CheckOptions, say: Say) -> Report:
    """Compute the prompts on both sides, one after the other, and judge. Raises ConfigError for what cannot be read."""
    threads = threads_of_rank(settings)
    torch.set_num_threads(threads)
    folder = resolve(settings.model)
    reference = folder if options.reference is None else resolve(options.reference)
    config = ModelConfig.read(folder)
    check_names(folder, config)
    checkpoint = Checkpoint.read(folder, name="", max_model_len=settings.max_model_len)
    prompts = (
        prompts_of.built_in_prompts(checkpoint)
        if options.prompt_file is None
        else prompts_of.prompts_of(options.prompt_file, checkpoint)
    )
    prompts = [prompt[: checkpoint.max_model_len - NUM_GENERATED] for prompt in prompts]
    device, dtype = rank_device(settings.device, 0), torch_dtype(settings, config)
    of_cache = kv_dtype(settings, dtype)
    num_tokens = sum(len(prompt) + NUM_GENERATED for prompt in prompts)
    num_layers = _num_layers(options.num_layers, config, dtype, device, num_tokens)
    cut = leading_layers(config, num_layers)
    size = f"{num_layers} of {config.num_hidden_layers} layers, {weights_bytes(cut, num_layers, dtype) / 2**30:.1f} GiB"
    say(f"computing here: {size}")
    here = computed_here(
        folder,
        cut,
        prompts,
        num_generated=NUM_GENERATED,
        dtype=dtype,
        kv_dtype=of_cache,
        device=device,
        fixed_order=settings.deterministic and device.type == "cpu",
        num_threads=threads,
        by_triton=settings.cuda_kernels == "triton",
        progress=_Tenths(say).tell,
    )
    say("computing with transformers: the same")
    alone, fed = Oracle(reference, num_layers, dtype, device).computed(here.texts, here.states)
    kinds = ["dense" if config.is_dense(layer_id) else "experts" for layer_id in range(num_layers)]
    return Report(
        model=str(folder),
        reference=str(reference),
        dtype=_named(dtype) if of_cache == dtype else f"{_named(dtype)} with a KV cache in {_named(of_cache)}",
        device=settings.device,
        kernels=here.kernels,
        num_layers=num_layers,
        num_layers_of_checkpoint=config.num_hidden_layers,
        num_prompts=len(prompts),
        num_tokens=len(here.states.hidden_TD[0]),
        verdict=judged(here.states, alone, fed, bounds_of(dtype, of_cache), kinds),
    )


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class _Tenths:
    """Says how far loading has come, at each tenth: hundreds of gigabytes take minutes."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._told = 0

    def tell(self, done_bytes: int, total_bytes: int) -> None:
        tenths = 10 * done_bytes // max(1, total_bytes)
        if total_bytes >= WORTH_TELLING_BYTES and tenths > self._told:
            self._told = tenths
            self._say(f"loaded {tenths * 10} %")


def _num_layers(
    wanted: int | None, config: ModelConfig, dtype: torch.dtype, device: torch.device, num_tokens: int
) -> int:
    """Return how many first layers are compared. Raises ConfigError for more than there are."""
    if wanted is None:
        return layers_that_fit(config, dtype, num_tokens, free_bytes_of(device))
    if wanted > config.num_hidden_layers:
        raise ConfigError(f"--layers {wanted} is more than the checkpoint has; it has {config.num_hidden_layers}")
    return wanted
