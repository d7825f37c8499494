"""The secret by which the ranks of a generation know each other: the same in every pod, and told to nobody else."""

from pathlib import Path

import pytest

from integration.pods import running_group

WHISPER = "integration.fake_ranks:whisper"
SERVER = "integration.fake_server:run_server"


@pytest.mark.parametrize(("pods", "ranks_per_pod"), [(1, 2), (2, 1)])
def test_each_generation_has_a_secret_that_only_its_ranks_are_told(
    tmp_path: Path, pods: int, ranks_per_pod: int
) -> None:
    (whispered := tmp_path / "whispered").mkdir()
    with running_group(
        tmp_path, pods=pods, ranks_per_pod=ranks_per_pod, model=whispered, rank_target=WHISPER, server_target=SERVER
    ) as group:
        first = group.serving()["generation"]
        group.rank(1).kill()
        second = group.serving(after=first)["generation"]
        shown = [pod.get(path).text for pod in group.pods for path in ("/group", "/metrics")]
        shown += [pod.log.read_text() for pod in group.pods]
    secrets = [{(whispered / f"{generation}.{rank}").read_text() for rank in (0, 1)} for generation in (first, second)]
    assert [len(known) for known in secrets] == [1, 1]
    assert secrets[0] != secrets[1]
    for secret in set.union(*secrets):
        assert len(secret) == 32
        assert not any(secret in text for text in shown)
    assert any(second in text for text in shown)
