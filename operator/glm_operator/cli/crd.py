"""`glm crd`: the CustomResourceDefinition of this version, printed or brought up to date in a cluster.

The chart's hook runs `glm crd apply` with the right to get and patch this one object, and nothing else.
"""

import asyncio

import typer
import yaml

from glm_operator.api.crd import crd
from glm_operator.cli.console import out, plain_errors

app = typer.Typer(help="Look after the CustomResourceDefinition.", no_args_is_help=True)


@app.command("print")
def print_crd() -> None:
    """Print the CustomResourceDefinition as YAML."""
    out.print(yaml.safe_dump(crd(), sort_keys=False), markup=False, end="")


@app.command()
def apply() -> None:
    """Bring the cluster's CustomResourceDefinition to this version, and wait until the API server serves it.

    Uses the pod's own account inside a cluster, else the current context of the kubeconfig.
    """
    from glm_operator.cluster.crd_apply import (
        apply_crd,  # the client costs seconds to import and is no part of local mode
    )

    with plain_errors():
        out.print(asyncio.run(apply_crd(crd())))
