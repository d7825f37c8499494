"""Debian's Prometheus as a process of this machine, on a loopback port of its own. JSON will do as its YAML."""

import json
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from glm_cluster import packages
from glm_cluster.errors import ClusterError
from integration.free_ports import free_port

DEADLINE_S = 60.0
SCRAPE_INTERVAL_S = 0.5

Json = Mapping[str, Any]


def require_prometheus() -> None:
    """Skip the test, in a sentence, where there is no Prometheus and none can be installed."""
    try:
        packages.install_missing(packages.PROMETHEUS)
    except ClusterError as error:
        pytest.skip(f"no prometheus and promtool: {error}")


def scrape_config(addresses: Sequence[str], *, job: str = "glm", relabelling: Sequence[Json] = ()) -> Json:
    """Return what scrapes these addresses, host:port, and drops or renames what `relabelling` says."""
    return {
        "job_name": job,
        "honor_labels": True,
        "static_configs": [{"targets": list(addresses)}],
        "metric_relabel_configs": list(relabelling),
    }


@dataclass
class PrometheusProcess:
    """One Prometheus. It may be stopped and started again at the same port, and keeps its data."""

    folder: Path
    port: int
    config: Json
    web_config: Json = field(default_factory=dict)
    context: ssl.SSLContext | None = None  # to ask whether it is ready, where it speaks TLS
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'http' if self.context is None else 'https'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        (self.folder / "prometheus.yaml").write_text(json.dumps(self.config))
        (self.folder / "web.yaml").write_text(json.dumps(self.web_config))
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={self.folder / 'prometheus.yaml'}",
                f"--web.config.file={self.folder / 'web.yaml'}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                "--storage.tsdb.retention.time=90d",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=log,
            stderr=log,
        )
        log.close()
        deadline_s = time.monotonic() + DEADLINE_S
        while not self._is_ready():
            assert self.process.poll() is None, f"prometheus ended: {self.log()}"
            assert time.monotonic() < deadline_s, f"prometheus is not ready: {self.log()}"

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()  # data of a test need no orderly end
            self.process.wait()
            self.process = None

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def _is_ready(self) -> bool:
        """Ask whether it serves; who asks without credentials is at least refused by it."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1, context=self.context) as response:
                return bool(response.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code == 401
        except OSError as error:
            is_refusing_certificate = isinstance(getattr(error, "reason", None), ssl.SSLError)
            if not is_refusing_certificate:
                self._wait_a_moment()
            return is_refusing_certificate

    def _wait_a_moment(self) -> None:
        assert self.process is not None
        try:
            self.process.wait(0.05)
        except subprocess.TimeoutExpired:
            return


@contextmanager
def prometheus_process(
    folder: Path,
    scrape_configs: Sequence[Json] = (),
    *,
    rules: Sequence[Mapping[str, str]] = (),
    web_config: Json | None = None,
    context: ssl.SSLContext | None = None,
) -> Iterator[PrometheusProcess]:
    """Yield a Prometheus that scrapes twice a second; at the end it is gone."""
    require_prometheus()
    folder.mkdir(parents=True, exist_ok=True)
    interval = f"{round(SCRAPE_INTERVAL_S * 1000)}ms"
    config: dict[str, Any] = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "scrape_configs": list(scrape_configs),
    }
    if rules:
        (folder / "rules.yaml").write_text(json.dumps({"groups": [{"name": "glm", "rules": list(rules)}]}))
        config["rule_files"] = [str(folder / "rules.yaml")]
    found = PrometheusProcess(folder, free_port(), config, web_config or {}, context)
    try:
        found.start()
        yield found
    finally:
        found.stop()


def backfill(folder: Path, openmetrics: str) -> None:
    """Give a Prometheus that is not there yet samples of the past."""
    require_prometheus()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "past.txt").write_text(openmetrics)
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(folder / "past.txt"), str(folder / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Certificate:
    """A certificate of 127.0.0.1 that is its own authority, good for servers and clients."""

    certificate: Path
    key: Path


def a_certificate(folder: Path, name: str = "own") -> Certificate:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl, which makes certificates")
    found = Certificate(folder / f"{name}.crt", folder / f"{name}.key")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(found.key), "-out", str(found.certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return found
