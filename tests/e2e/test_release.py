"""Stories of one who installs: helm test, upgrade, uninstall, and an install under another name. Runs last."""

import pytest

from e2e.deployments import Deployed, nano, wait_for
from e2e.footprint import MODEL_NAMESPACE, OPERATOR_NAMESPACE
from e2e.operator_release import Release
from e2e.target import CRD, Target
from glm_cluster.errors import CommandFailed
from glm_operator.rollout.records import KEPT


def test_the_installed_release_passes_its_own_test(release: Release) -> None:
    assert "Succeeded" in release.target.helm("test", release.name, "-n", release.namespace)


def test_an_upgrade_mends_the_crd_and_serving_goes_on(shared: Deployed, release: Release) -> None:
    before = shared.pod_uids()
    spoilt = '[{"op":"remove","path":"/spec/versions/0/additionalPrinterColumns"}]'
    release.target.kubectl("patch", "crd", CRD, "--type=json", "-p", spoilt)
    release.install("--set", "logLevel=debug")
    assert "additionalPrinterColumns" in release.target.get("crd", CRD)["spec"]["versions"][0]
    assert shared.pod_uids() == before
    shared.wait_settled("1/1", timeout_s=60)
    assert shared.answers_right()


def test_the_operator_asks_for_nothing_it_may_not(release: Release) -> None:
    release.assert_nothing_refused()


def test_of_accepted_specs_only_the_last_are_kept(release: Release) -> None:
    edited = Deployed(release.target, "edited", MODEL_NAMESPACE)
    manifest = nano("edited", MODEL_NAMESPACE)
    manifest["spec"]["replicas"] = 0  # records and no pods: an edit costs no rollout
    release.target.apply(manifest)
    for max_num_seqs in range(1, KEPT + 2):
        edited.set_max_num_seqs(max_num_seqs)
        wait_for("the edit accepted", lambda: edited.condition("Planned")["status"] == "True", timeout_s=60)
    wait_for("the first records gone", lambda: len(_records(edited)) == KEPT, timeout_s=60)
    edited.delete()


def _records(deployed: Deployed) -> list[str]:
    return [name for name in deployed.owned() if name.startswith("ControllerRevision/")]


def test_the_operator_uses_everything_it_may(release: Release, all_stories: None) -> None:
    if release.target.cluster is None:
        pytest.skip("the audit log of a given cluster is not at hand")
    release.assert_nothing_unused(release.target.cluster)


def test_models_serve_on_without_an_operator_another_release_takes_them_over_and_deletion_needs_none(
    shared: Deployed, release: Release
) -> None:
    target, before = release.target, shared.pod_uids()
    release.uninstall()
    assert shared.pod_uids() == before
    assert shared.answers_right()
    assert _exists(target, "crd", CRD)
    other = Release(target, "another-name", OPERATOR_NAMESPACE)
    other.install("--set", f"watchNamespaces={{{shared.namespace}}}")  # with a Role in it in place of a ClusterRole
    target.kubectl("delete", "service/nano", "-n", shared.namespace)
    wait_for("a repair by the new release", lambda: "Service/nano" in shared.owned(), timeout_s=60)
    shared.wait_settled("1/1", timeout_s=60)
    shared.wait_answers()
    other.assert_clean_logs()
    other.assert_nothing_refused()
    other.uninstall()
    shared.delete()
    wait_for("everything gone", lambda: not shared.owned(), timeout_s=60)


def _exists(target: Target, *what: str) -> bool:
    try:
        target.get(*what)
    except CommandFailed:
        return False
    return True
