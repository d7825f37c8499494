"""Draw each dashboard with live data into docs/images (`make dashboard-pictures`).

Runs a real operator, real workers and a real Prometheus through idle, load, one dead pod and back, asks Prometheus what
the panels of the committed JSON ask, and has Chromium draw the answers with a page of our own. Grafana draws them
otherwise. With a folder as its argument it keeps the answers there, or draws those that are there again.
"""

import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from integration.observed_world import World, an_observed_world

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = ROOT / "charts/glm-operator/dashboards"
IMAGES = ROOT / "docs/images"
PAGE = Path(__file__).parent
NOTE = "Drawn by glm-operator from the dashboard's JSON, not by Grafana. Time in minutes of a run of glm-nano on CPUs."
STEP_S = 1
COLOURS = 224
VARIABLES = {
    "__rate_interval": "10s",
    "__interval_ms": "1000",
    "__interval": "1s",
    "namespace": ".+",
    "deployment": ".+",
    "slo_class": ".+",
}


async def run(world: World) -> None:
    """Go through every state, long enough for a picture."""
    await world.until("the deployment is ready", lambda: world.operator.is_ready("chat"))
    await world.pass_time(30)
    world.load.set(2)
    await world.pass_time(30)
    world.load.set(12)
    await world.until("two groups serve", lambda: world.serving == 2)
    await world.pass_time(60)
    await world.kill("chat-g1")
    await world.pass_time(20)
    await world.revive()
    await world.until("both serve again", lambda: world.serving == 2)
    await world.pass_time(30)
    world.load.set(1)
    await world.until("one group is wanted", lambda: world.spec_groups == 1)
    await world.pass_time(30)


def filled(expr: str, range_s: float) -> str:
    for name, value in {**VARIABLES, "__range": f"{round(range_s)}s"}.items():
        expr = expr.replace(f"${name}", value)
    return expr


async def data_of(world: World, dashboard: dict[str, Any], start: float, end: float) -> dict[str, Any]:
    """Return what the page draws: the dashboard and every answer."""
    answers: dict[int, dict[str, Any]] = {}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expr = filled(target["expr"], end - start)
            if target.get("instant"):
                found = await world.api("query", query=expr, time=end)
            else:
                found = await world.api("query_range", query=expr, start=start, end=end, step=STEP_S)
            answers.setdefault(panel["id"], {})[target["refId"]] = found["data"]["result"]
    notes = []
    for annotation in dashboard.get("annotations", {}).get("list", []):
        expr = filled(annotation["expr"], end - start)
        found = await world.api("query_range", query=expr, start=start, end=end, step=STEP_S)
        for series in found["data"]["result"]:
            labels, last = series["metric"], 0.0
            for at, _ in series["values"]:
                if at - last > 2 * STEP_S:  # Grafana, too, makes one region of samples in a row
                    limit = f", limited by {labels['limit']}" if "limit" in labels else ""
                    notes.append({"at": at, "text": f"{labels['direction']} for {labels['reason']}{limit}"})
                last = at
    return {
        "dashboard": dashboard,
        "answers": answers,
        "annotations": notes,
        "start": start,
        "end": end,
        "step": STEP_S,
        "note": NOTE,
    }


def draw(data: dict[str, Any], target: Path) -> None:
    """Have Chromium draw the page, and keep its picture small."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("no chromium: apt-get install chromium has it")
    height = 30 * max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in data["dashboard"]["panels"]) + 90
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shutil.copytree(PAGE, folder / "page", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        (folder / "page/data.js").write_text(f"const DATA = {json.dumps(data)};\n")
        flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        more = "--disable-component-update --disable-sync --hide-scrollbars --force-device-scale-factor=1"
        command = [chromium, *flags.split(), *more.split(), f"--user-data-dir={folder / 'profile'}"]
        command += [f"--window-size=1600,{height}", f"--screenshot={folder / 'shot.png'}"]
        subprocess.run([*command, (folder / "page/page.html").as_uri()], check=True, capture_output=True, timeout=120)
        shot = Image.open(io.BytesIO((folder / "shot.png").read_bytes())).convert("RGB")
    shot.quantize(COLOURS).save(target, optimize=True)
    sys.stdout.write(f"wrote {target.relative_to(ROOT)}, {target.stat().st_size // 1024} KiB\n")


async def measured(dashboards: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what is to be drawn of each dashboard, after one run."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_STATE_HOME"] = scratch
        async with an_observed_world(Path(scratch)) as world:
            start = time.time()
            await run(world)
            end = time.time()
            return {slug: await data_of(world, each, start, end) for slug, each in dashboards.items()}


def main() -> None:
    kept = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    dashboards = {file.stem: json.loads(file.read_text()) for file in sorted(DASHBOARDS.glob("*.json"))}
    if kept is not None and kept.is_dir():
        data = {slug: json.loads((kept / f"{slug}.json").read_text()) for slug in dashboards}
    else:
        data = asyncio.run(measured(dashboards))
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        for slug, each in data.items():
            (kept / f"{slug}.json").write_text(json.dumps(each))
    IMAGES.mkdir(parents=True, exist_ok=True)
    for slug, dashboard in dashboards.items():
        draw({**data[slug], "dashboard": dashboard}, IMAGES / f"dashboard-{slug}.png")


if __name__ == "__main__":
    main()
