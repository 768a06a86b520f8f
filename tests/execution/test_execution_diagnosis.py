"""Each reason why an address leads to no agent, with members that really listen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from planner.errors import ExecuteError
from planner.execution.probe.survey import Inquirer
from planner.execution.wire.certificates import make_certificates
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.zenoh import free_port, zenoh_connect


@contextlib.contextmanager
def member(address: str, cert_dir: Path | None) -> Iterator[None]:
    transport = zenoh_connect("a", listen=address, connect=[], cert_dir=cert_dir)(lambda _: None, lambda *_: None)
    try:
        yield
    finally:
        transport.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | None]:
    made: dict[str, Path | None] = {name: tmp_path_factory.mktemp(name) for name in ("ours", "others")}
    for folder in made.values():
        assert folder is not None
        make_certificates(folder, ["a"], life=timedelta(days=2))
    return {**made, "none": None}


@pytest.mark.parametrize(
    ("agent", "coordinator", "reason"),
    [
        ("ours", "ours", None),
        ("none", "none", None),
        ("ours", "none", "it uses certificates, and none were given"),
        ("none", "ours", "it uses no certificates"),
        ("others", "ours", "its certificate is of another authority"),
    ],
)
def test_what_is_wrong_with_an_address(
    folders: dict[str, Path | None], agent: str, coordinator: str, reason: str | None
) -> None:
    address = f"127.0.0.1:{free_port()}"
    opener = zenoh_connect(COORDINATOR, listen=None, connect=[address], cert_dir=folders[coordinator])
    with member(address, folders[agent]):
        if reason is None:
            with Inquirer(opener) as inquirer:
                assert inquirer.find([], 1.0) == ("a",)
        else:
            with (
                Inquirer(opener) as inquirer,
                pytest.raises(ExecuteError, match=f"no agents within 0.5 s; {address}: {reason}"),
            ):
                inquirer.find([], 0.5)


@pytest.mark.parametrize(
    ("address", "reason"),
    [("127.0.0.1:{free}", "nobody listens there"), ("nowhere.invalid:7447", "no such host")],
)
def test_an_address_at_which_there_is_nothing(address: str, reason: str) -> None:
    address = address.format(free=free_port())
    opener = zenoh_connect(COORDINATOR, listen=None, connect=[address], insecure=True)
    with Inquirer(opener) as inquirer, pytest.raises(ExecuteError, match=f"{address}: {reason}"):
        inquirer.find([], 0.2)
