"""Write Grafana's dashboards into the chart (`make dashboards`); tests/contract fails when one is stale."""

import sys
from pathlib import Path

from grafana import autoscaler, deployment, fleet, gateway, operator_process
from grafana.frame import grafana_json

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "charts/glm-operator/dashboards"
BOARDS = (fleet.BOARD, deployment.BOARD, gateway.BOARD, autoscaler.BOARD, operator_process.BOARD)


def generated() -> dict[Path, str]:
    """Path and text of every dashboard."""
    return {FOLDER / f"{board.slug}.json": grafana_json(board, BOARDS) for board in BOARDS}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
