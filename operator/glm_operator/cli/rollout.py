"""`glm rollout`: see, hold, undo and adopt rollouts. What it shows comes from the records and the status."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer
from rich.table import Table

from glm_operator import names
from glm_operator.api.spec import MOVES_NOTHING, InvalidSpec, parse_deployment
from glm_operator.cli.console import CommandError, out, plain_errors
from glm_operator.manifest import Manifest, merge_patch
from glm_operator.observe.observed import Record
from glm_operator.render import speaks_tls
from glm_operator.rollout.records import is_of

app = typer.Typer(help="See, pause, undo and adopt the rollouts of a GLMDeployment.", no_args_is_help=True)

POLL_S = 1.0

Name = Annotated[str, typer.Argument(help="Name of the GLMDeployment.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Default: that of the kubeconfig's context.")]


@app.command()
def status(
    name: Name,
    namespace: Namespace = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the end of the rollout.")] = 3600.0,
    watch: Annotated[bool, typer.Option(help="Wait for the end; else say how it stands.")] = True,
) -> None:
    """Follow a rollout to its end. Exit status 1 where it is stuck, or the newest spec is refused."""

    async def follow(kube: Any, where: str) -> None:
        deadline, said = time.monotonic() + timeout, ""
        while True:
            body = await kube.wanted(where, name)
            line, is_over, is_bad = how_it_stands(body, (await kube.kept(body)).records)
            if line != said:
                out.print(line, markup=False)
            said = line
            if is_bad:
                raise typer.Exit(1)
            if is_over or not watch:
                return
            if time.monotonic() > deadline:
                raise CommandError(f"the rollout of {name} has not ended within {timeout:.0f} s")
            await asyncio.sleep(POLL_S)

    _run(follow, namespace)


@app.command()
def history(name: Name, namespace: Namespace = None) -> None:
    """List what was accepted: the revisions a rollout can go back to."""

    async def show(kube: Any, where: str) -> None:
        body = await kube.wanted(where, name)
        observed = await kube.kept(body)
        running = [group.revision for group in observed.groups.values() if group.exists]
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("Number", "Revision", "Accepted", "Image", "Groups", ""):
            table.add_column(column)
        for record in newest_first(observed.records):
            accepted = record.accepted_at.isoformat(timespec="seconds") if record.accepted_at else ""
            marks = ["current"] if record.revision == body.get("status", {}).get("revision") else []
            marks += ["adopted rendering"] if record.is_adopted else []
            groups = str(running.count(record.revision))
            table.add_row(str(record.number), record.revision, accepted, record.image, groups, ", ".join(marks))
        out.print(table)

    _run(show, namespace)


@app.command()
def undo(
    name: Name,
    namespace: Namespace = None,
    to_revision: Annotated[
        str | None, typer.Option(help="A revision or number of `history`. Default: the one before.")
    ] = None,
) -> None:
    """Go back to an earlier revision: its spec, and the very template that was rendered from it then."""

    async def go_back(kube: Any, where: str) -> None:
        body = await kube.wanted(where, name)
        record = to_go_back_to((await kube.kept(body)).records, body, to_revision)
        await kube.change(body, undoing(body, record), rests_on=what_undo_rests_on)
        out.print(f"{name} goes back to revision {record.revision}{_held(body)}", markup=False)

    _run(go_back, namespace)


@app.command()
def pause(name: Name, namespace: Namespace = None) -> None:
    """Hold the rollout: no further group moves. Scaling and repair go on."""
    _run(lambda kube, where: _pause(kube, where, name, is_paused=True), namespace)


@app.command()
def resume(name: Name, namespace: Namespace = None) -> None:
    """Let a paused rollout go on."""
    _run(lambda kube, where: _pause(kube, where, name, is_paused=False), namespace)


@app.command()
def adopt(
    name: Annotated[str | None, typer.Argument(help="Name of the GLMDeployment; or --all.")] = None,
    namespace: Namespace = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every GLMDeployment of the namespace.")] = False,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="With --all: of the cluster.")] = False,
    selector: Annotated[
        str | None, typer.Option("--selector", "-l", help="With --all: those with these labels, as in team=chat.")
    ] = None,
) -> None:
    """Move groups to what this operator version renders, which an upgrade of the operator never does by itself.

    The operator does it for some deployments at a time (chart value adoptions.atOnce), each within its maxUnavailable.
    """

    async def take(kube: Any, where: str) -> None:
        if everyone == (name is not None) or ((all_namespaces or selector) and not everyone):
            raise CommandError("give the name of a GLMDeployment, or --all, which may have -A and -l")
        if name is not None:
            bodies = [await kube.wanted(where, name)]
        else:
            bodies = await kube.deployments(None if all_namespaces else where, labels_of(selector))
        taken = [body for body in bodies if body.get("status", {}).get("newerRevision")]
        for body in taken:
            revision = body["status"]["newerRevision"]
            await kube.change(body, _asking_for(revision, revision), rests_on=what_was_asked_for)
            out.print(f"{_full_name(body)} adopts revision {revision}{_held(body)}", markup=False)
        if not taken:
            out.print(
                "nothing to adopt: no status names a newer rendering. After an upgrade it does once the operator has "
                "looked at the deployment"
            )

    _run(take, namespace)


def how_it_stands(body: Manifest, records: tuple[Record, ...]) -> tuple[str, bool, bool]:
    """Return a line for people, whether the rollout has ended, and whether it will not by itself. Pure."""
    found = body.get("status", {})
    if found.get("observedGeneration") != body["metadata"].get("generation"):
        return "waiting for the operator to see the newest spec", False, False
    conditions = {condition["type"]: condition for condition in found.get("conditions", [])}
    planned, progressing = conditions["Planned"], conditions["Progressing"]
    counts = f"{found.get('upToDate')} up to date, {found.get('ready')} ready"
    if planned["status"] == "False":
        return f"{planned['reason']}: {planned['message']}", True, True
    if waits_for_revision(body, records):
        said = conditions.get("UpToDate", {}).get("message", "")
        return f"{counts}; waiting for the revision that was asked for by name to be taken; {said}", False, False
    line = f"{counts}; {progressing['reason']}: {progressing['message']}"
    if progressing["status"] == "True":
        return line, False, False
    is_done = progressing["reason"] == "Settled"
    return line, is_done, not is_done


def waits_for_revision(body: Manifest, records: tuple[Record, ...]) -> bool:
    """Tell whether somebody asked for a revision of this very spec that groups do not move to yet. Pure."""
    found, annotations = body.get("status", {}), body["metadata"].get("annotations") or {}
    wanted = annotations.get(names.ADOPT_ANNOTATION)
    if wanted is None or wanted == found.get("revision"):
        return False
    try:
        deployment = parse_deployment(body)
    except InvalidSpec:
        return False
    then = annotations.get(names.NEWEST_THEN_ANNOTATION)
    if deployment.spec.rollout.adopt == "Automatic" and then not in (None, _newest(body)):
        return False  # who asked did not know what is rendered now, and that is taken
    kept = {record.revision: record for record in records if is_of(record, deployment)}
    if wanted == found.get("newerRevision"):
        return True
    return wanted in kept and not _is_passed_over(kept[wanted], kept.get(found.get("revision")), found)


def _is_passed_over(wanted: Record, current: Record | None, found: Manifest) -> bool:
    """Tell whether what was asked for by name speaks TLS, where nothing is rendered with TLS any more: it is not taken.

    current: what groups move to, of the same spec. found: the status.
    """
    is_newest = "newerRevision" not in found
    return is_newest and current is not None and _speaks_tls(wanted) and not _speaks_tls(current)


def _speaks_tls(record: Record) -> bool:
    return record.template is not None and speaks_tls(record.template["spec"]["template"])


def labels_of(selector: str | None) -> dict[str, str] | None:
    """Return the labels of a selector like team=chat,tier=1. Pure."""
    if selector is None:
        return None
    pairs = [part.partition("=") for part in selector.split(",")]
    if any(not key or not sign for key, sign, _ in pairs):
        raise CommandError(f"selector {selector!r} is no list of labels; write it as in team=chat,tier=1")
    return {key: value for key, _, value in pairs}


def newest_first(records: tuple[Record, ...]) -> list[Record]:
    """Return the records with all of a revision kept, the last accepted first. Pure."""
    return sorted((record for record in records if record.template is not None), key=lambda record: -record.number)


def to_go_back_to(records: tuple[Record, ...], body: Manifest, wanted: str | None) -> Record:
    """Return the record that somebody names by revision or number. Pure.

    By default what was accepted last, where the newest spec was refused; else the one before what groups move to.
    """
    kept = newest_first(records)
    known = ", ".join(f"{record.number} ({record.revision})" for record in kept) or "none"
    if wanted is not None:
        named = [record for record in kept if wanted in (record.revision, str(record.number))]
        if not named:
            raise CommandError(f"revision {wanted} is not kept; kept are {known}")
        return named[0]
    found = body.get("status", {})
    if found.get("observedGeneration") != body["metadata"].get("generation"):
        raise CommandError(
            f"the operator has not seen the newest spec yet; wait, or give --to-revision; kept are {known}"
        )
    conditions = {condition["type"]: condition["status"] for condition in found.get("conditions", [])}
    is_refused = conditions.get("Planned") == "False"
    before = [record for record in kept if (record.revision == found.get("revision")) == is_refused]
    if not before:
        raise CommandError(f"there is no revision to go back to; kept are {known}")
    return before[0]


def what_was_asked_for(body: Manifest) -> object:
    """Return what people have asked for: the spec, by its generation, and a revision by name. Pure."""
    annotations = body["metadata"].get("annotations") or {}
    by_name = [annotations.get(name) for name in (names.ADOPT_ANNOTATION, names.NEWEST_THEN_ANNOTATION)]
    return body["metadata"].get("generation"), by_name


def what_undo_rests_on(body: Manifest) -> object:
    """Return what decides which revision is the one before: wishes, what groups move to, and refusals. Pure."""
    found = body.get("status", {})
    planned = [condition["status"] for condition in found.get("conditions", []) if condition["type"] == "Planned"]
    return what_was_asked_for(body), found.get("revision"), planned


def undoing(body: Manifest, record: Record) -> dict[str, Any]:
    """Return the change that brings a record's spec back, and asks for its template by name. Pure."""
    current = body["spec"]
    kept = {key: current[key] for key in MOVES_NOTHING if key in current}
    spec = merge_patch(current, {**record.spec, **kept})
    newest = None if spec else _newest(body)  # of another spec nobody knows it
    return {**_asking_for(record.revision, newest), **({"spec": spec} if spec else {})}


def _asking_for(revision: str, newest: str | None) -> dict[str, Any]:
    """Return the change that asks for a revision by name. newest: the newest rendering that one knows, of its spec."""
    return {"metadata": {"annotations": {names.ADOPT_ANNOTATION: revision, names.NEWEST_THEN_ANNOTATION: newest}}}


def _newest(body: Manifest) -> str | None:
    """Return the newest rendering of the newest spec, as the status has it; None where that is of another spec."""
    found = body.get("status", {})
    refused = any(each["type"] == "Planned" and each["status"] == "False" for each in found.get("conditions", []))
    if refused or found.get("observedGeneration") != body["metadata"].get("generation"):
        return None
    newest: str | None = found.get("newerRevision") or found.get("revision")
    return newest


def _held(body: Manifest) -> str:
    is_paused = body["spec"].get("rollout", {}).get("paused", False)
    return " (the rollout is paused: `kubectl glm rollout resume` lets groups move)" if is_paused else ""


def _full_name(body: Manifest) -> str:
    return f"{body['metadata']['namespace']}/{body['metadata']['name']}"


async def _pause(kube: Any, where: str, name: str, *, is_paused: bool) -> None:
    body = await kube.wanted(where, name)
    await kube.change(body, {"spec": {"rollout": {"paused": is_paused}}})
    out.print(f"the rollout of {name} is {'paused' if is_paused else 'resumed'}", markup=False)


def _run(command: Callable[[Any, str], Awaitable[None]], namespace: str | None) -> None:
    """Run a command as the kubeconfig's current user, in the namespace that was named or is the context's."""
    from glm_operator.cluster.user import as_user  # the client costs seconds to import and is no part of local mode

    async def run() -> None:
        async with as_user() as (kube, default):
            await command(kube, namespace or default)

    with plain_errors():
        asyncio.run(run())
