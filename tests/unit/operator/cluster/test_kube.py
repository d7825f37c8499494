"""How the API server is reached."""

from pathlib import Path

import yaml

from glm_operator.cluster.kube import read_configuration


async def test_every_watch_of_every_namespace_finds_a_connection(tmp_path: Path) -> None:
    """Five watches a namespace hold one each for good: with a limit, passes would find none left."""
    kubeconfig = tmp_path / "kubeconfig"
    named = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}],
    }
    contexts = [{"name": "x", "context": {"cluster": "c", "user": "u"}}]
    kubeconfig.write_text(yaml.safe_dump({**named, "contexts": contexts, "current-context": "x"}))
    assert (await read_configuration(kubeconfig)).connection_pool_maxsize == 0
