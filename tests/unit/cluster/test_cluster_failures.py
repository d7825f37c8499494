"""What is told of a cluster that does not come up."""

from pathlib import Path

import pytest

from glm_cluster import __main__ as command
from glm_cluster import lifecycle
from glm_cluster.errors import ClusterError
from glm_cluster.paths import Paths
from glm_cluster.processes import Processes


class Running(Processes):
    """Programs that run, whatever the machine says."""

    def require(self, name: str) -> None:
        pass


def test_a_program_that_is_never_ready_is_told_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "PATIENCE_S", 0.0)
    processes = Running(tmp_path, tmp_path)
    processes.log("kubelet").write_text("cannot mount /x\n")
    with pytest.raises(
        ClusterError, match=r"(?s)kubelet being ready did not happen .*kubelet\.log:\n  cannot mount /x"
    ):
        lifecycle.await_program(processes, "kubelet", lambda: False)


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_cluster_that_is_half_up_is_told_with_how_to_remove_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], has_begun: bool
) -> None:
    def fail(paths: Paths) -> None:
        if has_begun:
            paths.state.mkdir(parents=True)
        raise ClusterError("no such luck")

    monkeypatch.setenv("GLM_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(command.sys, "argv", ["glm_cluster", "up"])
    monkeypatch.setitem(command.COMMANDS, "up", fail)
    assert command.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("glm_cluster: no such luck\n")
    assert ("`make cluster-down` removes it" in said) == has_begun
