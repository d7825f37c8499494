"""Train glm-nano from nothing on tasks.py, on a CPU: 11,700 steps of about 3,000 tokens: 36 million.

On 2 cores that others used too it took about two hours and a half, at 1,700 to 11,500 tokens a second. From CHAIN_STEP
on a new optimizer teaches chains of two calls to the finished model; --weights begins there.

The data of a step depends on (seed, step) alone and the learning rate on the step alone, so an interrupted run
continues from its last checkpoint as if nothing had happened, however many processes share the work. Each
EXPORT_EVERY steps the weights go to --out in the final layout (bf16, Hugging Face names), so that the folder can
always be loaded. From nothing: make_tokenizer.py, train.py, evaluate.py.
"""

import argparse
import json
import time
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
import torch.nn.functional as F
from batches import Batch, Encoder, shard_batch
from model import Config, GlmNano, RowsAttention, from_checkpoint, to_checkpoint
from prompt import FOLDER
from safetensors.torch import load_file, save_file
from tasks import CHAIN_STEP
from tokenizers import Tokenizer
from torch import Tensor
from torch.multiprocessing.spawn import spawn

# Two processes of one thread train twice as fast as one of two threads: most operations are too small to share.
SHARDS = 2
TOKENS_PER_SHARD = 1536
PEAK_RATE = 2e-3
# (step, share of the peak rate): warm-up, plateau, decay. The dips are where the decay of earlier plans was put off.
SCHEDULE = (
    (0, 0.005),
    (200, 1.0),
    (2052, 1.0),
    (2400, 0.5726),
    (3000, 0.5726),
    (3500, 0.2656),
    (3600, 0.6),
    (5600, 0.6),
    (7000, 0.015),
    (7100, 0.6),
    (9200, 0.6),
    (9600, 0.5384),
    (9700, 0.5166),
    (10100, 0.316),
    (11700, 0.015),
)
STEPS = SCHEDULE[-1][0]
MTP_WEIGHT = 0.3
MTP_EVERY = 4  # steps: the draft layer is easier to teach than the model, and costs a quarter of a step
BALANCE_RATE = 1e-3  # of the experts' correction bias, a step at the peak learning rate
CHECKPOINT_EVERY = 100
EXPORT_EVERY = 200
LOG_EVERY = 20
SHIPPED_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors",
)


@dataclass
class Training:
    """What a checkpoint holds."""

    model: GlmNano
    optimizer: torch.optim.AdamW
    step: int = 0

    def save(self, path: Path) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def start(seed: int) -> Training:
    torch.manual_seed(seed)
    model = GlmNano(Config.read(FOLDER / "config.json"))
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return Training(model, torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98), fused=True))


def renew(training: Training) -> Training:
    """Go on from the weights as they are exported, with a new optimizer: how chains were taught to a finished model."""
    state = from_checkpoint(to_checkpoint(training.model.state_dict()), training.model.config)
    renewed = start(seed=0)
    renewed.model.load_state_dict(state)
    renewed.step = training.step
    return renewed


def start_from(folder: Path) -> Training:
    """Return the state of CHAIN_STEP with the exported weights of a folder."""
    training = start(seed=0)
    weights = load_file(folder / "model.safetensors")
    training.model.load_state_dict(from_checkpoint(weights, training.model.config))
    training.step = CHAIN_STEP
    return training


def rate_share(step: int) -> float:
    """Return the learning rate's share of its peak, on straight lines between the points of the schedule."""
    for (first, start), (last, end) in pairwise(SCHEDULE):
        if step < last:
            return start + (end - start) * (step - first) / (last - first)
    return SCHEDULE[-1][1]


def losses(model: GlmNano, batch: Batch, *, with_drafts: bool) -> tuple[Tensor, Tensor]:
    """Return the summed losses of the next token and of the one after it (MTP; 0 without drafts)."""
    attend = RowsAttention(batch.lengths)
    targets = batch.ids_T[batch.target_ids]
    hidden_TD = model.hidden(batch.ids_T, batch.position_ids_T, attend)
    main = F.cross_entropy(model.lm_head(hidden_TD[batch.target_ids - 1]), targets, reduction="sum")
    if not with_drafts:
        return main, torch.zeros(())
    # The last position of a row gets the first token of the next row: only that position sees it, and no target does.
    drafted_TD = model.draft_hidden(batch.ids_T.roll(-1), hidden_TD, batch.position_ids_T, attend)
    mtp = F.cross_entropy(model.lm_head(drafted_TD[batch.target_ids - 2]), targets, reduction="sum")
    return main, mtp


def train_step(training: Training, batches: list[Batch], share: float) -> tuple[float, float]:
    """Take one optimizer step on the shards of all processes; return the mean losses (next token, MTP).

    Collective: every process calls it, and all end with the same weights.
    """
    model = training.model
    with_drafts = training.step % MTP_EVERY == MTP_EVERY - 1
    sums = torch.zeros(3)  # next-token loss, MTP loss, targets
    for batch in batches:
        main, mtp = losses(model, batch, with_drafts=with_drafts)
        torch.autograd.backward(main + MTP_WEIGHT * mtp)
        sums += torch.stack((main.detach(), mtp.detach(), torch.tensor(len(batch.target_ids))))
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    _add_up([*gradients, *(router.load_E for router in model.routers()), sums])
    for gradient in gradients:
        gradient /= sums[2]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in training.optimizer.param_groups:
        group["lr"] = PEAK_RATE * share
    training.optimizer.step()
    training.optimizer.zero_grad()
    for router in model.routers():
        router.balance(BALANCE_RATE * share)
    training.step += 1
    return (sums[0] / sums[2]).item(), (sums[1] / sums[2]).item()


def _add_up(tensors: list[Tensor]) -> None:
    """Replace each tensor by its sum over the processes, in one exchange."""
    if dist.get_world_size() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def export(model: GlmNano, out: Path) -> None:
    """Write the weights and the manifest into the checkpoint folder; each file appears whole or not at all."""
    temporary = out / "model.safetensors.tmp"
    save_file(to_checkpoint(model.state_dict()), temporary, metadata={"format": "pt"})
    temporary.chmod(0o644)
    temporary.replace(out / "model.safetensors")
    write_manifest(out)


def write_manifest(out: Path) -> None:
    files = {}
    for name in SHIPPED_FILES:
        content = (out / name).read_bytes()
        files[name] = {"sha256": sha256(content).hexdigest(), "size": len(content)}
    temporary = out / "manifest.json.tmp"
    temporary.write_text(json.dumps({"files": files}, indent=2) + "\n", encoding="utf-8")
    temporary.replace(out / "manifest.json")


def run(rank: int, args: argparse.Namespace) -> None:
    """Train as one of args.processes processes; the first also writes checkpoints, exports and progress."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{args.rendezvous}", rank=rank, world_size=args.processes)
    checkpoint = args.work / "checkpoint.pt"
    training = start(args.seed)
    if args.resume and checkpoint.exists():
        training.load(checkpoint)
    elif args.weights:
        training = start_from(args.weights)
    encoder = Encoder(Tokenizer.from_file(str(FOLDER / "tokenizer.json")))

    first, started, last = training.step, time.monotonic(), args.steps
    while training.step < last:
        if training.step == CHAIN_STEP:
            training = renew(training)
        batches = [
            shard_batch(encoder, args.seed, training.step, shard, TOKENS_PER_SHARD)
            for shard in range(rank, SHARDS, args.processes)
        ]
        main_loss, mtp_loss = train_step(training, batches, rate_share(training.step))
        if rank == 0 and training.step % LOG_EVERY == 0:
            step_s = (time.monotonic() - started) / (training.step - first)
            print(
                f"step {training.step}/{args.steps} loss {main_loss:.4f} mtp {mtp_loss:.4f} "
                f"{SHARDS * TOKENS_PER_SHARD / step_s:.0f} tokens/s ETA {(last - training.step) * step_s / 60:.0f} min",
                flush=True,
            )
        if rank == 0 and (training.step % CHECKPOINT_EVERY == 0 or training.step == last):
            training.save(checkpoint)
        if rank == 0 and (training.step % EXPORT_EVERY == 0 or training.step == last):
            export(training.model, args.out)
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help="checkpoint folder")
    parser.add_argument("--weights", type=Path, help="folder to begin with at CHAIN_STEP, instead of from nothing")
    parser.add_argument("--work", type=Path, default=Path("~/.cache/glm-operator/train-glm-nano").expanduser())
    parser.add_argument("--steps", type=int, default=STEPS, help="stop here; the learning rate does not depend on it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, choices=(1, 2), default=2, help="of one thread each; same result")
    parser.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        args.rendezvous = Path(folder) / "rendezvous"
        spawn(run, (args,), nprocs=args.processes)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
