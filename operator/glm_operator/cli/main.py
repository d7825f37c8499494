"""Puts the commands together."""

import typer

from glm_operator.cli import crd, keys, local, plan, rollout
from glm_operator.cli.replay.command import replay_command
from glm_operator.cli.status.command import status_command

app = typer.Typer(
    name="glm",
    help="Plan GLMDeployments, run them on this machine, follow their rollouts, and look after keys and the CRD.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("plan")(plan.plan_command)
app.command("replay")(replay_command)
app.command("status")(status_command)
app.add_typer(local.app, name="local")
app.add_typer(rollout.app, name="rollout")
app.add_typer(keys.app, name="keys")
app.add_typer(crd.app, name="crd")
