import re
from pathlib import Path

import pytest

from glm_cluster.base_image import base_name
from glm_cluster.errors import ClusterError
from glm_cluster.images import OUR_CODE, Image, certificate_options, packages_digest
from glm_cluster.paths import CHECKOUT
from glm_cluster.registry import Layer, layer

DOCKERFILE = (CHECKOUT / "Dockerfile").read_text()


def stage(name: str) -> str:
    """Return the Dockerfile's lines of one stage."""
    found = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


def test_the_base_is_read_from_the_dockerfile() -> None:
    assert base_name("# x\nARG BASE=example.org/python:3.11\nFROM ${BASE}\n") == "example.org/python:3.11"
    with pytest.raises(ClusterError, match="ARG BASE"):
        base_name("FROM python\n")


def test_every_stage_stands_on_the_one_base() -> None:
    bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
    assert bases == {"${BASE}", "runtime"}


def test_another_line_that_copies_our_code_asks_for_no_room_and_another_package_does(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    for file in ("locks/uv.txt", "locks/worker.txt"):
        (tmp_path / file).write_text("a==1")

    def digest(dockerfile: str) -> str:
        (tmp_path / "Dockerfile").write_text(dockerfile)
        return packages_digest("worker", tmp_path)

    before = digest(DOCKERFILE)
    assert all(line.decode() in DOCKERFILE for line in OUR_CODE)
    assert digest(DOCKERFILE + "COPY worker/more /app/more\n") == before
    assert digest(DOCKERFILE + "RUN apt-get install more\n") != before
    (tmp_path / "locks/worker.txt").write_text("a==2")
    assert digest(DOCKERFILE) != before


@pytest.mark.parametrize("name", ["operator", "worker"])
def test_our_code_lies_above_the_packages_and_nothing_is_installed_above_it(name: str) -> None:
    lines = stage(name)
    assert lines.index("uv pip install") < lines.index(f"COPY {name}/glm_{name} /app/{name}/glm_{name}")
    assert "install" not in lines[lines.index(f"COPY {name}/") :]


@pytest.mark.parametrize("name", ["operator", "worker"])
def test_images_run_as_a_user_without_rights(name: str) -> None:
    assert re.findall(r"^USER (\S+)$", stage(name), re.MULTILINE) == ["65532:65532"]


@pytest.mark.parametrize("name", ["operator", "worker"])
def test_packages_are_installed_by_hash_only(name: str) -> None:
    assert f"--require-hashes --only-binary :all: -r /opt/glm/locks/{name}.txt" in stage(name)


def test_the_operator_image_has_no_torch() -> None:
    assert not re.search(r"^torch==", (CHECKOUT / "locks/operator.txt").read_text(), re.MULTILINE)


def test_the_dockerfile_names_no_host_but_in_base() -> None:
    without_base = re.sub(r"^(ARG BASE=.*|LABEL .*source=.*)$", "", DOCKERFILE, flags=re.MULTILINE)
    assert not re.search(r"\b[a-z0-9-]+\.(io|com|org|net)/", without_base)


def test_an_image_is_named_by_digest_for_pods_and_by_tag_for_people() -> None:
    image = Image("glm-worker", "sha256:abc")
    assert image.reference == "10.201.0.2:5000/glm-worker@sha256:abc"
    assert image.tagged == "10.201.0.2:5000/glm-worker:dev"


def test_the_machines_certificates_are_shown_to_the_build(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    assert certificate_options({"SSL_CERT_FILE": str(file)}) == []
    file.write_text("")
    options = certificate_options({"SSL_CERT_FILE": str(file)})
    assert options == [f"--volume={tmp_path}:{tmp_path}:ro", f"--build-arg=SSL_CERT_FILE={file}"]


def test_layer_sizes_are_those_in_the_registry() -> None:
    assert layer({"digest": "sha256:1", "size": 7, "mediaType": "x"}) == Layer("sha256:1", 7)
