"""The environment in which the supervisor starts its children. Pure."""

from collections.abc import Mapping

from glm_worker.settings import WorkerSettings

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def child_environment(settings: WorkerSettings, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return inherited with the settings as GLM_* in it: flags of `glm-worker serve` reach the children this way.

    The token of the management port stays here: no child needs it.
    """
    values = {**settings.model_dump(mode="json"), "management_token": ""}
    return {**inherited, **{f"GLM_{name.upper()}": str(value) for name, value in values.items()}}


def zygote_environment(settings: WorkerSettings, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return child_environment with one thread for every library that would start a pool when imported.

    The ranks of a group of one pod reach each other by loopback; left alone, gloo listens on the pod's own address.
    """
    gloo = {"GLOO_SOCKET_IFNAME": "lo"} if settings.num_pods == 1 else {}
    return {**child_environment(settings, inherited), **_ONE_THREAD, **gloo}
