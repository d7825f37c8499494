"""`glm plan`: what the operator would make of a GLMDeployment, without a cluster."""

from typing import Annotated

import typer
import yaml
from rich.table import Table

from glm_operator.cli.console import SpecFile, out, plain_errors, size
from glm_operator.cli.files import Planned, read_planned
from glm_operator.names import DEFAULT_WORKER_IMAGE
from glm_operator.render import render


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
) -> None:
    """Print how a GLMDeployment would lie over ranks, pods and GPUs; refuse what cannot be, as the operator would."""
    with plain_errors():
        planned = read_planned(file, worker_image=worker_image)
        if manifests:
            out.print(
                yaml.safe_dump_all(render(planned.deployment, planned.layout), sort_keys=False), markup=False, end=""
            )
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
    return facts
