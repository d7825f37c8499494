"""`glm plan`: what the operator would make of a GLMDeployment, without a cluster."""

from typing import Annotated

import typer
import yaml
from rich.table import Table

from glm_operator.autoscale.estimate.promises import out_of_reach
from glm_operator.cli.console import SpecFile, out, plain_errors, size
from glm_operator.cli.files import Planned, read_planned
from glm_operator.layout.floor import least_time
from glm_operator.layout.products import LABELS, product_of
from glm_operator.names import DEFAULT_WORKER_IMAGE
from glm_operator.render import render
from glm_operator.shapes import SHAPES
from glm_operator.status import texts

LONG_PROMPT = 8192
"""Tokens of the prompt that the plan tells a time for, beside the shortest."""


def plan_command(
    file: SpecFile,
    manifests: Annotated[bool, typer.Option("--manifests", help="Print the objects instead, as YAML.")] = False,
    worker_image: Annotated[
        str,
        typer.Option(
            help="Image of a spec without engine.image. An operator takes worker.image of its chart: name that one to "
            "see the manifests, and the revision in them, as that operator applies them."
        ),
    ] = DEFAULT_WORKER_IMAGE,
    certificates: Annotated[
        bool,
        typer.Option(help="As certificates.enabled of the operator's chart: groups speak TLS with their gateway."),
    ] = True,
) -> None:
    """Print how a GLMDeployment would lie over ranks, pods and GPUs; refuse what cannot be, as the operator would."""
    with plain_errors():
        planned = read_planned(file, worker_image=worker_image)
        if manifests:
            has_tls = certificates and planned.deployment.spec.front.is_wanted
            made = render(planned.deployment, planned.layout, has_tls=has_tls)
            out.print(yaml.safe_dump_all(made, sort_keys=False), markup=False, end="")
        else:
            out.print(plan_table(planned))


def plan_table(planned: Planned) -> Table:
    """The plan as facts for people."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in plan_facts(planned):
        table.add_row(name, value)
    return table


def plan_facts(planned: Planned) -> list[tuple[str, str]]:
    """Name and value of everything worth knowing of a plan. Pure."""
    spec, layout = planned.deployment.spec, planned.layout
    facts = [
        ("deployment", f"{planned.deployment.namespace}/{planned.deployment.name}"),
        ("model", f"{spec.model.name} from {spec.model.source}"),
        ("replica groups", f"{spec.replicas}, each one copy of the model"),
        (
            "ranks per group",
            f"{layout.ranks} on {spec.hardware.device} ({layout.pods_per_group} x {layout.ranks_per_pod} a pod)",
        ),
        ("experts", f"expert-parallel over {layout.expert} ranks" if layout.expert > 1 else "all on one rank"),
        ("attention", f"tensor-parallel over {layout.tensor} ranks" if layout.tensor > 1 else "whole on every rank"),
    ]
    if layout.gpus_per_group:
        facts.append(("GPUs", f"{layout.gpus_per_group * spec.replicas} ({layout.gpus_per_group} a group)"))
    if layout.memory is not None:
        memory = layout.memory
        facts += [
            ("parameters", f"{memory.parameters:,}"),
            ("weights per rank", size(memory.weight_bytes_per_rank)),
            ("KV per token", f"{size(memory.kv_bytes_per_token_per_rank)} a rank"),
        ]
    return [*facts, *_floor_facts(planned)]


def _floor_facts(planned: Planned) -> list[tuple[str, str]]:
    """Return the least times of a request and what they forbid; nothing of CPUs and of models without a shape."""
    spec, floor = planned.deployment.spec, planned.layout.floor
    shape, product = SHAPES.get(spec.model.name), product_of(spec.hardware)
    if shape is None or spec.hardware.device == "cpu":
        return []
    if floor is None or product is None:
        return [("least times", f"not known: hardware.nodeSelector has no {LABELS[0]} of a GPU that the planner knows")]
    tensor, expert = planned.layout.tensor, planned.layout.expert
    long = least_time(shape, product, tensor=tensor, expert=expert, prompt_tokens=LONG_PROMPT)
    least = (
        f"itl {texts.seconds(floor.step_s)}, ttft {texts.seconds(floor.first_token_s)} "
        f"({texts.seconds(long.first_token_s)} for {LONG_PROMPT:,} tokens of prompt)"
    )
    reasons = out_of_reach(spec.slo, floor.seconds, floor.hardware)
    return [
        ("least times", f"{least}, of one request alone on {floor.hardware}"),
        *((f"class {name}", f"cannot be kept: {why}") for name, why in reasons.items()),
    ]
