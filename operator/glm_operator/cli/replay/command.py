"""The command: reads a spec, a trace or a recorded range and a calibration, simulates, and shows what came of it."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from glm_operator.api.scaling import Scaling
from glm_operator.autoscale.series import Series
from glm_operator.autoscale.simulate.errors import InputError
from glm_operator.autoscale.simulate.model.calibration import H200_AIR_FP8, Calibration, read_calibration
from glm_operator.autoscale.simulate.ours import Ours
from glm_operator.autoscale.simulate.recorded import METRICS, recorded_trace
from glm_operator.autoscale.simulate.run import MONDAY_S, Result, Setup, simulate
from glm_operator.autoscale.simulate.static import static_fleet
from glm_operator.autoscale.simulate.thresholds import THRESHOLD_METRICS, auto_thinking
from glm_operator.autoscale.simulate.trace import Arrival, read_trace
from glm_operator.cli.console import CommandError, SpecFile, err, out, plain_errors, progress, url_of_option
from glm_operator.cli.files import Planned, read_planned
from glm_operator.cli.replay import picture, terminal
from glm_operator.cli.replay import sweep as sweeping
from glm_operator.cli.replay.story import Story, story

BINS_OF_PICTURE = 180
MARGIN = 26  # of the terminal's width, for labels
MAX_POINTS = 10_000  # samples of a series that are asked of Prometheus


def replay_command(
    spec: SpecFile,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="CSV of requests: at_s, prompt_tokens, output_tokens and, if they think, thinking_tokens; or the "
            "columns of Azure's traces."
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="What `glm-worker calibrate` wrote. Default: GLM-4.5-Air in FP8 on one H200, from rooflines."
        ),
    ] = None,
    prometheus: Annotated[
        str | None, typer.Option(help="URL of a Prometheus that recorded the deployment, instead of --trace.")
    ] = None,
    begin: Annotated[str | None, typer.Option("--from", help="Begin of the recorded range: 2026-01-05T08:00.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="End of it. Times without an offset are UTC.")] = None,
    start: Annotated[
        str | None, typer.Option(help="When the trace begins, for schedules. Default: 2026-01-05T00:00, a Monday.")
    ] = None,
    cold_start: Annotated[
        float | None, typer.Option(help="Seconds until a new group serves. Default: those of the calibration.", min=0.1)
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Picture to write: .svg or .png.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    title: Annotated[str | None, typer.Option(help="Above the picture.")] = None,
    auto_threshold: Annotated[
        str | None,
        typer.Option(
            help="With --prometheus: what these values of reasoning.autoThreshold would have made of the range, as in "
            "0.3,0.5,0.7."
        ),
    ] = None,
) -> None:
    """Replay a load against spec.slo and spec.scaling: what would have been decided, kept and spent.

    Everything is simulated, nothing is asked of a cluster. The operator's own law decides, and sees what Prometheus
    would have shown at each moment. With --auto-threshold it compares thresholds of mode auto instead: how many
    requests would have thought, what was to be generated, and how many groups the law would have wanted.
    """
    with plain_errors():
        try:
            planned = read_planned(spec)
            if auto_threshold is not None:
                options = _Range(prometheus, begin, end, calibration, cold_start, title)
                _compare_thresholds(planned, auto_threshold, options, output, as_json=as_json)
                return
            slo, scaling = planned.deployment.spec.slo, _scaling(planned.deployment.spec.scaling)
            began_s = _unix_s(start, "--start") if start else MONDAY_S
            if prometheus is not None:
                began_s, end_s = _range(begin, end)
                series = _recorded(planned, url_of_option(prometheus), began_s, end_s, METRICS)
                arrivals = recorded_trace(series, slo, began_s, end_s)
            elif trace is not None:
                arrivals = _read(trace)
            else:
                raise CommandError("give --trace, or --prometheus with --from and --to")
            measured = _calibration(calibration)
            setup = _setup(planned, scaling, arrivals, measured, cold_start, began_s)
            if setup.length_s <= 0:
                raise CommandError("every request of the trace comes at the same moment; nothing can be decided in it")
            with progress("simulating"):
                result = simulate(setup, Ours(slo, scaling, began_s))
                static_groups, static = static_fleet(setup)
        except InputError as error:
            raise CommandError(str(error)) from error
        heading = title or f"{planned.deployment.name}: {len(arrivals):,} requests in {setup.length_s / 60:.0f} minutes"

        def told(bins: int) -> Story:
            return story(heading, result, static_groups, static, bins)

        if output is not None:
            picture.save(told(BINS_OF_PICTURE), output)
            err.print(f"wrote {output}", markup=False)
        if as_json:
            out.print_json(json.dumps(as_data(told(60), result)))
        else:
            out.print(terminal.draw(told(2 * max(20, min(out.width, 160) - MARGIN))))


def as_data(found: Story, result: Result) -> dict[str, object]:
    """Return a run as data: what it was worth, every decision, and what stood every 5 s."""
    return {
        "title": found.title,
        "attainment": found.outcome.attainment,
        "attainment_by_class": found.outcome.by_class,
        "gpu_hours": found.outcome.gpu_hours,
        "static": {
            "groups": found.static_groups,
            "attainment": found.static.attainment,
            "gpu_hours": found.static.gpu_hours,
        },
        "breaches": found.outcome.breaches,
        "breach_to_decision_s": list(found.outcome.breach_to_decision_s),
        "decisions": [asdict(change) for change in found.changes],
        "points": [asdict(point) for point in result.points],
    }


def _scaling(scaling: Scaling | None) -> Scaling:
    if scaling is None:
        raise CommandError("the deployment has no spec.scaling; there is nothing to replay")
    if scaling.mode not in ("Active", "Observe"):
        raise CommandError(f"spec.scaling.mode is {scaling.mode}; only Active and Observe decide")
    if scaling.may_be_zero:
        err.print("scaling.min is 0; a simulation has no gateway that holds requests, so one group stays", markup=False)
        return scaling.model_copy(update={"min_groups": 1, "zero": None})
    return scaling


def _read(path: Path) -> tuple[Arrival, ...]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            return read_trace(lines)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read {path}: {error}") from error


def _calibration(path: Path | None) -> Calibration:
    if path is None:
        err.print("no --calibration: a group is GLM-4.5-Air in FP8 on one H200, derived from rooflines", markup=False)
        return H200_AIR_FP8
    try:
        return read_calibration(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read {path}: {error}") from error


def _setup(
    planned: Planned,
    scaling: Scaling,
    arrivals: tuple[Arrival, ...],
    calibration: Calibration,
    cold_start_s: float | None,
    began_s: float,
) -> Setup:
    spec = planned.deployment.spec
    return Setup(
        arrivals=arrivals,
        slo=spec.slo,
        scaling=scaling,
        calibration=calibration,
        start_groups=max(1, spec.replicas, scaling.min_groups),
        cold_start_s=() if cold_start_s is None else (cold_start_s,),
        gpus_per_group=planned.layout.gpus_per_group or 1,
        began_s=began_s,
    )


def _range(begin: str | None, end: str | None) -> tuple[float, float]:
    if begin is None or end is None:
        raise CommandError("--prometheus needs --from and --to")
    begin_s, end_s = _unix_s(begin, "--from"), _unix_s(end, "--to")
    if end_s <= begin_s:
        raise CommandError(f"--to {end} is not after --from {begin}")
    return begin_s, end_s


def _unix_s(text: str, option: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(f"{option} {text} is no time; write it as in 2026-01-05T08:00") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


@dataclass(frozen=True)
class _Range:
    """A recorded range as the options say it, and what it is simulated with."""

    prometheus: str | None
    begin: str | None
    end: str | None
    calibration: Path | None
    cold_start_s: float | None
    title: str | None


def _compare_thresholds(
    planned: Planned, thresholds: str, options: _Range, output: Path | None, *, as_json: bool
) -> None:
    """Print what other thresholds of mode auto would have made of a recorded range."""
    if options.prometheus is None:
        raise CommandError("--auto-threshold needs --prometheus, --from and --to: a trace has no scores")
    if output is not None:
        raise CommandError("--auto-threshold compares runs, and -o draws one; leave out either")
    chosen = sweeping.thresholds_of(thresholds)
    (begin_s, end_s), spec = _range(options.begin, options.end), planned.deployment.spec
    series = _recorded(planned, url_of_option(options.prometheus), begin_s, end_s, (*METRICS, *THRESHOLD_METRICS))
    arrivals = recorded_trace(series, spec.slo, begin_s, end_s)
    auto = auto_thinking(series)
    measured = _calibration(options.calibration)
    scaling = spec.scaling if spec.scaling is not None and spec.scaling.mode in ("Active", "Observe") else None

    def run(each: tuple[Arrival, ...]) -> Result:
        assert scaling is not None
        setup = _setup(planned, scaling, each, measured, options.cold_start_s, begin_s)
        return simulate(setup, Ours(spec.slo, scaling, begin_s))

    name, minutes = planned.deployment.name, (end_s - begin_s) / 60
    heading = options.title or f"{name}: {len(arrivals):,} requests in {minutes:.0f} minutes"
    law = run if scaling is not None else None
    with progress("simulating"):
        found = sweeping.sweep(heading, arrivals, auto, chosen, begin_s, measured.max_model_len, law)
    if as_json:
        out.print_json(json.dumps(asdict(found)))
    else:
        out.print(sweeping.draw(found))


def _recorded(planned: Planned, url: str, begin_s: float, end_s: float, metrics: Sequence[str]) -> list[Series]:
    """Return what Prometheus recorded of these metrics of the deployment in a range."""
    from glm_operator.cluster.metrics.access import Access, Connection  # the client is needed only here
    from glm_operator.cluster.metrics.queries import WrongAnswer, read_series, selector
    from glm_operator.cluster.metrics.reading import MetricsProblem

    length_s = end_s - begin_s
    step_s = max(5.0, length_s / MAX_POINTS)
    of = selector(planned.deployment.namespace, planned.deployment.name)
    query = f'{{__name__=~"{"|".join(metrics)}",{of}}}[{length_s:.0f}s:{step_s:.0f}s] @ {end_s:.0f}'

    async def ask() -> list[Series]:
        connection = Connection(Access(url=url, timeout_s=60.0))
        try:
            return read_series(await connection.instant(query))
        finally:
            await connection.close()

    try:
        return asyncio.run(ask())
    except (MetricsProblem, WrongAnswer) as problem:
        raise CommandError(str(problem)) from problem
