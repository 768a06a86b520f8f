"""Certificates are created once, can be extended, and are private; real agents enforce them over real Zenoh."""

from __future__ import annotations

import queue
import shutil
import signal
import stat
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cryptography")

from planner.errors import ExecuteError
from planner.execution.wire.certificates import make_certificates
from planner.execution.wire.diagnostics import About, Ask, Ping
from planner.execution.wire.fragments import split
from planner.execution.wire.frames import Frame, encode
from planner.execution.wire.messages import COORDINATOR, BlockFile, Refused
from planner.execution.wire.own_certificate import EndNotice
from planner.execution.wire.security import Credentials, is_loopback
from planner.execution.wire.zenoh import free_port, zenoh_connect
from tests.execution.raw import Raw, agent_process, raw_member

LIFE = timedelta(days=2)
ANY = "0.0.0.0"  # noqa: S104 - what must be refused


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certs")
    make_certificates(made, ["a", "b"], life=LIFE)
    return made


def known_to_a(coordinator: Raw) -> tuple[str, ...]:
    """Return the members that agent a knows, as soon as the coordinator is one of them: it learns of each by itself."""
    while COORDINATOR not in (present := coordinator.alive("a").present):
        time.sleep(0.02)
    return present


def test_certificates_are_the_authority_s_and_keys_are_private(folder: Path) -> None:
    from cryptography import x509

    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    for member in (COORDINATOR, "a", "b"):
        assert {path.name for path in (folder / member).iterdir()} == {
            "ca.pem", "members.txt", f"{member}.pem", f"{member}.key",
        }  # fmt: skip
        own = x509.load_pem_x509_certificate((folder / member / f"{member}.pem").read_bytes())
        own.verify_directly_issued_by(authority)
        assert own.subject.rfc4514_string() == f"CN={member}"
    for key in (folder / "ca.key", folder / "a" / "a.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_workers_are_added_to_an_existing_folder(tmp_path: Path) -> None:
    make_certificates(tmp_path, ["a"], life=LIFE)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.key")}
    assert make_certificates(tmp_path, ["c", "a"], life=LIFE) == (COORDINATOR, "a", "c")
    assert all(path.read_bytes() == data for path, data in before.items())
    assert Credentials.read(tmp_path / "a", "a").members == (COORDINATOR, "a", "c")
    assert Credentials.read(tmp_path, COORDINATOR).folder == tmp_path / COORDINATOR


@pytest.mark.parametrize("name", ["a/b", "*", "", COORDINATOR])
def test_an_invalid_worker_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExecuteError, match=r"invalid worker name|reserved for the coordinator"):
        make_certificates(tmp_path, [name], life=LIFE)


def test_a_folder_that_is_not_the_member_s_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ExecuteError, match=r"a/z\.pem: no such file"):
        Credentials.read(folder / "a", "z")
    with pytest.raises(ExecuteError, match=r"members\.txt: cannot be read"):
        Credentials.read(tmp_path, "a")
    make_certificates(tmp_path, ["a"], life=LIFE)
    (tmp_path / "a" / "a.key").chmod(0o644)
    with pytest.raises(ExecuteError, match="other users may read this key; found '644'; expected mode 600"):
        Credentials.read(tmp_path / "a", "a")
    (tmp_path / "ca.key").write_text("no key")
    with pytest.raises(ExecuteError, match="not a certificate authority"):
        make_certificates(tmp_path, ["b"], life=LIFE)


@pytest.mark.parametrize(
    ("listen", "connect"), [(f"{ANY}:7447", []), ("192.0.2.7:7447", []), (None, ["127.0.0.1:1", "edge.example:7447"])]
)
def test_outside_the_loopback_interface_certificates_are_required(listen: str | None, connect: list[str]) -> None:
    with pytest.raises(ExecuteError, match=r"outside the loopback interface; .* --insecure"):
        zenoh_connect("a", listen=listen, connect=connect)
    zenoh_connect("a", listen=listen, connect=connect, insecure=True)


def test_loopback_addresses_are_recognised() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "[::1]", "localhost")))
    assert not any(map(is_loopback, (ANY, "[::]", "192.0.2.1", "localhost.example")))


@pytest.fixture(scope="module")
def address(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address where agent ``a`` listens with mutual TLS."""
    address = f"127.0.0.1:{free_port()}"
    cache = str(tmp_path_factory.mktemp("cache"))
    with agent_process("a", "--listen", address, "--cert-dir", str(folder / "a"), "--cache", cache):
        yield address


def test_members_connect_by_mutual_tls(folder: Path, address: str) -> None:
    with raw_member(connect=address, cert_dir=folder) as coordinator:
        coordinator.wait_for("a")
        links = coordinator.transport._session.info.links()
        assert {link.auth_identifier for link in links} == {"a"}
        assert all(str(link.dst).startswith("tls/") for link in links)
        while coordinator.alive("a").present != (COORDINATOR,):  # its presence may reach a after its question
            time.sleep(0.05)
        ends_unix_s = coordinator.alive("a").certificate_ends_unix_s
        assert ends_unix_s == Credentials.read(folder, "a").own.ends_unix_s


def test_no_worker_can_impersonate_another_member(folder: Path, address: str) -> None:
    with (
        raw_member(connect=address, cert_dir=folder) as coordinator,
        raw_member("b", connect=address, cert_dir=folder) as b,
    ):
        coordinator.wait_for("a")
        b.wait_for("a")
        for fragment in split(*encode(Frame(Ask()))):
            b.put("a", fragment.attachment, sender=COORDINATOR)  # dropped: the link is b's
            b.put("a", fragment.attachment)  # b's own, which it may not ask
        assert coordinator.expect(Refused).sender == "b"
        with pytest.raises(queue.Empty):
            coordinator.expect(About, Refused, wait_s=0.3)
        assert coordinator.alive("a").worker == "a"


def test_a_stranger_is_rejected(folder: Path, address: str, tmp_path: Path) -> None:
    make_certificates(tmp_path, ["b"], life=LIFE)
    with (
        raw_member("b", connect=address, cert_dir=tmp_path) as stranger,
        raw_member(connect=address, cert_dir=folder) as coordinator,
    ):
        coordinator.wait_for("a")
        stranger.send("a", Frame(Ping(to="a", times=1)))
        stranger.send("a", Frame(BlockFile(run="r", sha256="0" * 64), {"file": np.zeros(1, np.uint8)}))
        while coordinator.alive("a").present != (COORDINATOR,):  # its presence may reach a after its question
            time.sleep(0.05)


def test_a_revoked_certificate_is_replaced_by_one_of_another_name_and_never_given_again(tmp_path: Path) -> None:
    make_certificates(tmp_path, ["a", "b"], life=LIFE)
    before = (tmp_path / "a" / "a.key").read_bytes()
    with pytest.raises(ExecuteError, match=r"no certificate to revoke; found 'z'; expected one of _coordinator, a, b"):
        make_certificates(tmp_path, [], life=LIFE, revoke=["z"])
    assert make_certificates(tmp_path, [], life=LIFE, revoke=["a"]) == (COORDINATOR, "b")
    assert not (tmp_path / "a" / "a.key").exists()
    assert make_certificates(tmp_path, ["a"], life=LIFE) == (COORDINATOR, "b", "a")
    make_certificates(tmp_path, ["a"], life=LIFE, revoke=["a", COORDINATOR])
    for member, name in (("a", "a#3"), ("b", "b"), (COORDINATOR, f"{COORDINATOR}#2")):
        credentials = Credentials.read(tmp_path, member)
        assert credentials.own.name == credentials.certificates[member] == name
        assert credentials.members == (COORDINATOR, "b", "a")
    assert (tmp_path / "a" / "a.key").read_bytes() != before


def test_a_stolen_certificate_is_of_no_use_once_it_is_revoked(tmp_path: Path) -> None:
    folder, stolen = tmp_path / "certs", tmp_path / "stolen"
    make_certificates(folder, ["a", "b"], life=LIFE)
    shutil.copytree(folder / "b", stolen)
    make_certificates(folder, ["b"], life=LIFE, revoke=["b"])
    address = f"127.0.0.1:{free_port()}"
    cache = str(tmp_path / "cache")
    with (
        agent_process("a", "--listen", address, "--cert-dir", str(folder / "a"), "--cache", cache),
        raw_member("b", connect=address, cert_dir=stolen) as thief,
        raw_member(connect=address, cert_dir=folder) as coordinator,
    ):
        coordinator.wait_for("a")
        for _ in range(5):
            thief.send("a", Frame(Ping(to="a", times=1)))  # would be refused if it were heard
            assert known_to_a(coordinator) == (COORDINATOR,)
        with pytest.raises(queue.Empty):
            coordinator.expect(Refused, wait_s=0.3)
        with raw_member("b", connect=address, cert_dir=folder) as owner:
            owner.wait_for("a")
            while coordinator.alive("a").present != (COORDINATOR, "b"):
                time.sleep(0.02)
            owner.send("a", Frame(Ping(to="a", times=1)))
            assert coordinator.expect(Refused).sender == "b"
    shutil.copy(folder / "b" / "members.txt", stolen)
    with pytest.raises(ExecuteError, match=r"revoked, or another's; found 'b'; expected b#2, as in members\.txt"):
        Credentials.read(stolen, "b")


def test_certificates_that_end_within_a_month_are_announced_and_renewed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_certificates(tmp_path, ["a", "b"], life=timedelta(days=20))
    own = Credentials.read(tmp_path, "a").own
    assert 19 * 86400 < own.left_s < 20 * 86400
    assert "ends in 20 days" in own.notice
    notice = EndNotice("a", own.ends_unix_s)
    for _ in range(3):
        notice.log_if_due()
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "a: its certificate ends in 20 days"
    ]
    make_certificates(tmp_path, ["a"], life=timedelta(days=31), renew=True)
    assert Credentials.read(tmp_path, "a").own.notice == ""
    assert Credentials.read(tmp_path, "a").own.name == "a"
    assert Credentials.read(tmp_path, "b").own.notice
    make_certificates(tmp_path, ["a"], life=timedelta(seconds=-1), renew=True)
    with pytest.raises(ExecuteError, match=r"a\.pem: its certificate has ended"):
        Credentials.read(tmp_path, "a")
    shutil.copy(tmp_path / "b" / "b.key", tmp_path / "a" / "a.key")
    with pytest.raises(ExecuteError, match="not a valid certificate"):
        Credentials.read(tmp_path, "a")


def test_an_agent_connects_to_a_coordinator_that_starts_later_and_restarts(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with agent_process("a", "--connect", address, "--cache", str(tmp_path)) as process:
        time.sleep(1.0)
        for _ in range(2):
            with raw_member(listen=address) as coordinator:
                coordinator.wait_for("a")
                assert coordinator.alive("a").run is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_no_worker_has_the_name_of_the_authority(tmp_path: Path) -> None:
    with pytest.raises(ExecuteError, match="reserved for the authority; found 'ca'"):
        make_certificates(tmp_path / "certs", ["a", "ca"], life=LIFE)
    assert not (tmp_path / "certs").exists()
