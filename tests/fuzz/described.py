"""Send what the API's own description says, and what it does not: `python -m fuzz.described PORT`.

schemathesis makes the cases of /openapi.json, half of them valid by it. A JSON line at the end.
"""

import argparse
import json
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.core.errors import InvalidSchema
from schemathesis.core.failures import Failure, FailureGroup

from fuzz.judge import complaints
from fuzz.wire import Reply

_CHECKS = ("status_code_conformance", "content_type_conformance", "response_schema_conformance")
_BATCH = 60
_EVENTS = "text/event-stream"
_ALIASES = ("/api/anthropic", "/api/coding")


@dataclass
class Report:
    """What came of the cases. failures: the first few, told."""

    num_cases: int = 0
    by_operation: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    num_failures: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def fail(self, what: str) -> None:
        self.num_failures += 1
        if len(self.failures) < 40 and what not in self.failures:
            self.failures.append(what)


def send(
    port: int, num_cases: int, model: str = "glm-nano", *, host: str = "127.0.0.1", aliases: bool = True
) -> Report:
    """Send about so many cases, as many of each operation and kind, and judge the replies. Blocks.

    aliases: also those of operations that are others at a second path.
    """
    url = f"http://{host}:{port}"
    report, began_s = Report(), time.monotonic()
    with requests.Session() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other projects
        session.trust_env = False
        description = session.get(f"{url}/openapi.json", timeout=60).json()
        schema = schemathesis.openapi.from_dict(description)
        operations = [found.ok() for found in schema.get_all_operations()]
        reading = [each for each in operations if each.body and (aliases or not each.path.startswith(_ALIASES))]
        plain = [each for each in operations if not each.body]
        for_plain = min(num_cases // 10, 40 * len(plain))
        shares = {each.label: for_plain // len(plain) for each in plain}
        shares |= {each.label: (num_cases - for_plain) // len(reading) for each in reading}
        for operation in (*plain, *reading):
            for mode in GenerationMode:
                _send_of(operation, mode, max(1, shares[operation.label] // 2), url, session, report, model)
    report.seconds = round(time.monotonic() - began_s, 1)
    return report


def _send_of(
    operation: Any, mode: GenerationMode, count: int, url: str, session: requests.Session, report: Report, model: str
) -> None:
    """Send cases of one operation, in batches: the generator gives up now and then on a schema that it changed."""
    cases = operation.as_strategy(generation_mode=mode)
    sender = _Sender(operation, mode, url, session, report, model)
    for number in range(10 * count):
        left = count - sender.num_cases
        if left <= 0:
            return
        batch = seed(number)(
            settings(
                max_examples=min(left, _BATCH),
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )(given(case=cases)(sender.send))
        )
        try:
            batch()
        except Unsatisfiable:
            return  # nothing is invalid for it
        except InvalidSchema:
            continue
        if left == count - sender.num_cases:
            return  # no more of it


class _Sender:
    """Sends cases of one operation and judges the replies. Valid bodies name the model that is there."""

    def __init__(
        self, operation: Any, mode: GenerationMode, url: str, session: requests.Session, report: Report, model: str
    ) -> None:
        self._operation = operation
        self._mode = mode
        self._url = url
        self._session = session
        self._report = report
        self._model = model
        self._checks = [CHECKS.get_one(name) for name in _CHECKS]
        self.num_cases = 0

    def send(self, case: Any) -> None:
        if self._mode.is_positive and isinstance(case.body, dict):
            case.body["model"] = self._model
        try:
            response = case.call(base_url=self._url, session=self._session, timeout=60)
        except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL, UnicodeError):
            return  # no client could send that
        report = self._report
        self.num_cases += 1
        report.num_cases += 1
        report.by_operation[self._operation.label] += 1
        report.statuses[response.status_code] += 1
        headers = {name.lower(): values[0] for name, values in response.headers.items()}
        said = f"{self._operation.label} ({self._mode.value})"
        reply = Reply(response.status_code, headers, response.content)
        for what in complaints(self._operation.path, reply):
            report.fail(f"{said}: {what}: {reply.body[:300]!r}; sent {str(case.body)[:300]}")
        try:
            is_stream = _EVENTS in headers.get("content-type", "")
            case.validate_response(response, checks=self._checks[:2] if is_stream else self._checks)
        except (Failure, FailureGroup) as failure:
            failures = failure.exceptions if isinstance(failure, FailureGroup) else [failure]
            for each in failures:
                report.fail(f"{said}: {type(each).__name__}: {str(each)[:300]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--model", default="glm-nano")
    parser.add_argument("--cases", type=int, default=5500)
    arguments = parser.parse_args()
    report = send(arguments.port, arguments.cases, arguments.model, host=arguments.host)
    for failure in report.failures:
        print(failure)
    told = {**vars(report), "failures": len(report.failures)}
    print(json.dumps({**told, "statuses": dict(report.statuses), "by_operation": dict(report.by_operation)}))
    return 1 if report.num_failures else 0


if __name__ == "__main__":
    sys.exit(main())
