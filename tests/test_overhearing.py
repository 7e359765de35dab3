"""That nothing is let out is found out, wherever it is."""

import logging
import os
from collections.abc import Iterator

import pytest
import structlog

from syncd.cli.commands import run_command
from syncd.ops import http
from syncd.ops.metrics import Metrics
from syncd.simulator import Credentials
from tests import overhearing

ADA = "ada.l+x@example.com"


@pytest.fixture(autouse=True)
def _none_of_it_counts() -> Iterator[None]:
    yield
    overhearing.take_finds()


def heard() -> bool:
    return overhearing.let_out("tests/any.py::test", overhearing.take_finds()) is not None


def test_in_an_event() -> None:
    log = structlog.get_logger().bind(instance="acme")
    log.info("import_settled", job=7)
    assert not heard()
    for told in (
        {"reason": f"Invalid email address: {ADA}"},
        {"sample": [{"key": ADA}]},
        {"exc_info": ValueError(Credentials.client_secret)},
    ):
        log.info("import_settled", **told)
        assert heard(), told


def test_in_what_was_bound_before() -> None:
    structlog.get_logger().bind(key=ADA).warning("pull_fault")
    assert heard()


def test_in_what_a_library_says() -> None:
    library = logging.getLogger("some.library")
    library.setLevel(logging.ERROR)  # whatever a test before has configured
    library.error("%s was never retrieved", ADA)
    assert heard()


def test_in_a_sample_of_metrics() -> None:
    metrics = Metrics()
    vars(http)["generate_latest"](metrics.registry)
    assert not heard()
    metrics.lease(ADA, held=True)
    vars(http)["generate_latest"](metrics.registry)
    assert heard()


def test_in_what_a_command_complains_of() -> None:
    assert run_command(["status", f"--{Credentials.encryption_key}"]) == 2
    assert heard()


@pytest.mark.parametrize(
    "said", [f"key {ADA}", f"{os.urandom(16).hex()}:rehearsal", "postgresql://syncd:hunter2@/syncd"], ids=["address", "token", "dsn"]
)
def test_in_what_a_process_says(said: str) -> None:
    overhearing.hear("a process", said)
    assert heard()


@pytest.mark.parametrize("said", ["…@…", "pid 7 on host", "postgresql://syncd@127.0.0.1:1/syncd", "a @ b.com", "1@1764000000.5"])
def test_what_names_nobody_is_nothing(said: str) -> None:
    overhearing.hear("a process", said)
    assert not heard()
