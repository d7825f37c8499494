"""Draw the pictures of docs/autoscaling.md: one `glm replay` a knob, all on the same hour of load.

The load is the ramp of the benchmarks: 2 requests a second, 10 for ten minutes, then 1; half of them think. A group is
GLM-4.5-Air in FP8 on one H200, derived from rooflines, and takes a minute to start.
"""

import csv
import sys
import tempfile
from pathlib import Path

import yaml

from glm_operator.autoscale.simulate.scenarios import ramp
from glm_operator.cli import app

IMAGES = Path(__file__).resolve().parents[1] / "docs/images"
CLASSES = [
    {"name": "chat", "match": {"thinking": "Disabled"}, "ttft": "2s", "itl": "80ms"},
    {"name": "thinking", "match": {"thinking": "Enabled"}, "ttft": "4s", "itl": "80ms"},
]
MORNING = {"name": "morning", "cron": "15 8 * * *", "duration": "40m", "min": 8}
KNOBS: dict[str, tuple[str, dict[str, object]]] = {
    "default": ("min 1, max 20, and nothing else", {}),
    "target-utilization": ("targetUtilization 60 instead of 85", {"targetUtilization": 60}),
    "min-max": ("min 4, max 7", {"min": 4, "max": 7}),
    "up": ("up: 1 group in 3 minutes", {"up": {"groups": 1, "periodSeconds": 180}}),
    "down": (
        "down: 3 groups a minute after 1 minute",
        {"down": {"groups": 3, "periodSeconds": 60, "stabilizationSeconds": 60}},
    ),
    "schedules": ("a window from 8:15 to 8:55 with min 8; the picture begins at 8:00", {"schedules": [MORNING]}),
    "warm-up": ("warmUpSeconds 120 instead of 30", {"warmUpSeconds": 120}),
    "gpu-budget": ("gpuBudget 6", {"gpuBudget": 6}),
    "observe": ("mode Observe on eight groups: what Active would have set", {"mode": "Observe"}),
}


def spec(scaling: dict[str, object]) -> dict[str, object]:
    """Return a deployment with these knobs; one that is only observed has the fixed fleet that keeps its promises."""
    return {
        "apiVersion": "glm-operator.io/v1alpha1",
        "kind": "GLMDeployment",
        "metadata": {"name": "air"},
        "spec": {
            "model": {"name": "GLM-4.5-Air", "source": "pvc://models/GLM-4.5-Air-FP8"},
            "hardware": {"device": "cuda", "gpu": {"resourceName": "nvidia.com/gpu", "perNode": 8}},
            "replicas": 8 if scaling.get("mode") == "Observe" else 3,
            "slo": {"classes": CLASSES},
            "scaling": {"min": 1, "max": 20, **scaling},
        },
    }


def main() -> None:
    wanted = sys.argv[1:] or list(KNOBS)
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "ramp.csv"
        with trace.open("w", newline="", encoding="utf-8") as lines:
            rows = csv.writer(lines)
            rows.writerow(["at_s", "prompt_tokens", "output_tokens", "thinking_tokens"])
            rows.writerows((each.at_s, each.prompt_tokens, each.output_tokens, each.thinking_tokens) for each in ramp())
        for name in wanted:
            title, scaling = KNOBS[name]
            file = Path(folder) / "air.yaml"
            file.write_text(yaml.safe_dump(spec(scaling)), encoding="utf-8")
            arguments = ["replay", "-f", str(file), "--trace", str(trace), "--start", "2026-01-05T08:00", "--title"]
            app([*arguments, title, "-o", str(IMAGES / f"scaling-{name}.png"), "--json"], standalone_mode=False)


if __name__ == "__main__":
    main()
