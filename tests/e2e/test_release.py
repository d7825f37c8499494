"""Stories of one who installs: helm test, upgrade, uninstall, and an install under another name. Runs last."""

from e2e.deployments import Deployed, wait_for
from e2e.footprint import OPERATOR_NAMESPACE
from e2e.operator_release import Release
from e2e.target import CRD, Target
from glm_cluster.errors import CommandFailed


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


def test_models_serve_on_after_an_uninstall_and_another_release_takes_them_over(
    shared: Deployed, release: Release
) -> None:
    target, before = release.target, shared.pod_uids()
    release.uninstall()
    assert shared.pod_uids() == before
    assert shared.answers_right()
    assert _exists(target, "crd", CRD)
    other = Release(target, "another-name", OPERATOR_NAMESPACE)
    other.install()
    target.kubectl("delete", "service/nano", "-n", shared.namespace)
    wait_for("a repair by the new release", lambda: "Service/nano" in shared.owned(), timeout_s=60)
    shared.wait_settled("1/1", timeout_s=60)
    shared.wait_answers()
    shared.delete()
    wait_for("everything gone", lambda: not shared.owned(), timeout_s=60)
    other.assert_clean_logs()
    other.assert_nothing_refused()
    other.uninstall()


def _exists(target: Target, *what: str) -> bool:
    try:
        target.get(*what)
    except CommandFailed:
        return False
    return True
