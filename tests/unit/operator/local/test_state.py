"""What local mode remembers, and where."""

import contextlib
import os
import threading
from pathlib import Path

import msgspec
import pytest

from glm_operator.local.errors import LocalError
from glm_operator.local.state import DeploymentState, PodRecord, StateFolder


def a_record(name: str) -> PodRecord:
    group, _, index = name.rpartition("-")
    return PodRecord(name=name, group=group, index=int(index), address="127.64.0.1", fingerprint="f", token="t")


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    state = DeploymentState(name="nano", network=64, pods=[a_record("nano-g0-0")])
    folder = StateFolder(tmp_path)
    folder.write(state)
    assert folder.read("nano") == state
    assert folder.deployments() == [state]


def test_a_removed_deployment_is_forgotten_but_its_logs_stay(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    state = DeploymentState(name="nano", network=64, pods=[a_record("nano-g0-0")])
    folder.write(state)
    log = folder.log_file("nano", "nano-g0-0")
    log.parent.mkdir()
    log.write_text("said")
    folder.remove(state)
    assert folder.deployments() == []
    assert log.read_text() == "said"


def test_a_deployment_that_goes_while_all_are_read_is_no_fault(tmp_path: Path) -> None:
    class Busy(StateFolder):
        """A folder in which another command stops one deployment just before it is read."""

        def read(self, name: str) -> DeploymentState:
            if name == "goes":
                (self.root / name / "state.json").unlink()
            return super().read(name)

    folder = Busy(tmp_path)
    for name in ("goes", "stays"):
        folder.write(DeploymentState(name=name, network=64))
    assert [state.name for state in folder.deployments()] == ["stays"]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "nano").mkdir()
    (tmp_path / "nano" / "state.json").write_text('{"name": 3}')
    with pytest.raises(LocalError, match=r"nano/state\.json is damaged"):
        StateFolder(tmp_path).deployments()


def test_devices_that_were_written_as_numbers_are_read_as_text(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    folder.write(
        DeploymentState(name="nano", network=64, pods=[msgspec.structs.replace(a_record("nano-g0-0"), gpus=["7"])])
    )
    path = tmp_path / "nano" / "state.json"
    path.write_text(path.read_text().replace('"7"', "7"))
    (pod,) = folder.read("nano").pods
    assert pod.devices == ["7"]


def test_two_commands_do_not_change_the_state_at_once(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    with folder.locked(), pytest.raises(LocalError, match="another `glm local` command"), folder.locked():
        pass
    with folder.locked():
        pass


def test_a_command_waits_for_the_lock_and_says_so_once(tmp_path: Path) -> None:
    folder, said, holding = StateFolder(tmp_path), list[str](), contextlib.ExitStack()
    holding.enter_context(folder.locked())

    def waits() -> None:
        said.append("waits")
        threading.Thread(target=holding.close).start()

    with folder.locked(60.0, waits):
        assert said == ["waits"]
    with folder.locked(60.0, waits):
        assert said == ["waits"], "it was free"


def test_groups_are_in_order_of_their_number_and_begin_with_their_leader() -> None:
    names = ["nano-g10-0", "nano-g2-1", "nano-g2-0"]
    state = DeploymentState(name="nano", network=64, pods=[a_record(name) for name in names])
    assert [(group, [pod.name for pod in pods]) for group, pods in state.groups.items()] == [
        ("nano-g2", ["nano-g2-0", "nano-g2-1"]),
        ("nano-g10", ["nano-g10-0"]),
    ]


@pytest.mark.parametrize("depth", [0, 1, 5, 20])
def test_a_socket_fits_into_every_run_folder(depth: int) -> None:
    root = Path("/home/somebody") / "/".join(["deep"] * depth)
    path = StateFolder(root).run_dir("a" * 40, "a" * 40 + "-g999-99")
    assert len(os.fsencode(path / ("s" * 40))) <= 107


def test_run_folders_of_two_pods_differ_also_when_shortened() -> None:
    folder = StateFolder(Path("/" + "long" * 40))
    assert folder.run_dir("nano", "nano-g0-0") != folder.run_dir("nano", "nano-g0-1")
    assert folder.run_dir("nano", "nano-g0-0") != StateFolder(Path("/" + "more" * 40)).run_dir("nano", "nano-g0-0")
