"""What was put outlives the process that was given it, and a file that is broken costs no start."""

from pathlib import Path

import pytest

from glm_worker.messages import Policy, ReasoningPolicy, Slo, SloClass
from glm_worker.server.policy import policy_digest
from glm_worker.server.slo import slo_digest
from glm_worker.supervisor.rundir import RunDir
from glm_worker.supervisor.told.kept import kept_policy, kept_slo

FAST = Slo([SloClass(name="fast", thresholds_s={"ttft": 0.5}, objective=0.99)])
NONE = Slo([])
HIDDEN = Policy(reasoning=ReasoningPolicy(visibility="hidden", effort_tokens={"low": 1024}))


def test_before_the_first_there_are_none(tmp_path: Path) -> None:
    kept = kept_slo(tmp_path / "slo")
    assert (kept.value, kept.digest) == (None, None)


def test_the_next_life_has_the_last_promises(tmp_path: Path) -> None:
    kept = kept_slo(tmp_path / "slo")
    assert kept.keep(NONE) == slo_digest(NONE)
    assert kept.keep(FAST) == kept.digest == slo_digest(FAST)
    again = kept_slo(tmp_path / "slo")
    assert (again.value, again.digest) == (FAST, slo_digest(FAST))
    assert [path.name for path in tmp_path.iterdir()] == ["slo"]


def test_the_next_life_has_the_last_policy(tmp_path: Path) -> None:
    kept = kept_policy(tmp_path / "policy")
    assert kept.value is None
    assert kept.keep(HIDDEN) == policy_digest(HIDDEN)
    again = kept_policy(tmp_path / "policy")
    assert (again.value, again.digest) == (HIDDEN, policy_digest(HIDDEN))


@pytest.mark.parametrize(
    "raw", [b"", b"{", b'{"classes": [{"name": "fast"}]}', b'{"classes": 3}', b'{"classes": [{"name": "\xff"}]}']
)
def test_a_broken_file_is_no_promise(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "slo").write_bytes(raw)
    assert kept_slo(tmp_path / "slo").value is None


@pytest.mark.parametrize("raw", [b"", b"{", b'{"reasoning": {"auto_threshold": 2}}', b'{"visibility": "hidden"}'])
def test_a_broken_file_is_no_policy(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "policy").write_bytes(raw)
    assert kept_policy(tmp_path / "policy").value is None


def test_where_nothing_can_be_written_this_life_has_them_all_the_same(tmp_path: Path) -> None:
    kept = kept_slo(tmp_path / "gone" / "slo")
    kept.keep(FAST)
    assert kept.digest == slo_digest(FAST)


def test_the_file_outlives_the_folder_of_a_life_and_is_no_neighbours(tmp_path: Path) -> None:
    life = RunDir.create(tmp_path, "one")
    kept_slo(life.lasting("slo", "models/chat-g0")).keep(FAST)
    kept_policy(life.lasting("policy", "models/chat-g0")).keep(HIDDEN)
    life.close()
    next_life = RunDir.create(tmp_path, "two")
    assert kept_slo(next_life.lasting("slo", "models/chat-g0")).value == FAST
    assert kept_policy(next_life.lasting("policy", "models/chat-g0")).value == HIDDEN
    assert kept_slo(next_life.lasting("slo", "models/chat-g1")).value is None
    next_life.close()
