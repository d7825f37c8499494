"""A quota that is full is told apart from one that could never hold the pod."""

import pytest

from glm_operator.reconcile.quota import would_fit_alone

FORBIDDEN = 'pods "nano-g0-x7k2p" is forbidden: '


@pytest.mark.parametrize(
    "said",
    [
        "exceeded quota: full, requested: pods=1, used: pods=1, limited: pods=1",
        "exceeded quota: q, requested: memory=2Gi,pods=1, used: memory=3Gi,pods=1, limited: memory=4Gi,pods=9",
        "exceeded quota: q, requested: requests.nvidia.com/gpu=8, used: a=8, limited: requests.nvidia.com/gpu=8",
    ],
)
def test_what_fits_an_empty_quota_would_fit_alone(said: str) -> None:
    assert would_fit_alone(FORBIDDEN + said)


@pytest.mark.parametrize(
    "said",
    [
        "exceeded quota: q, requested: requests.memory=8Gi, used: requests.memory=2Gi, limited: requests.memory=4Gi",
        "exceeded quota: q, requested: pods=1,cpu=9, used: pods=1,cpu=1, limited: pods=1,cpu=8500m",
        "failed quota: q: must specify limits.memory",
        "maximum memory usage per Container is 4Gi, but limit is 8Gi",
        "exceeded quota: q, requested: pods=1, used: pods=1, limited: services=1",
        "exceeded quota: q, requested: pods=one, used: pods=1, limited: pods=1",
        "exceeded quota: q, requested: pods, used: pods=1, limited: pods=1",
        'admission webhook "x" denied the request: you have exceeded quota: ask',
    ],
)
def test_what_never_fits_or_says_something_else_would_not(said: str) -> None:
    assert not would_fit_alone(FORBIDDEN + said)
