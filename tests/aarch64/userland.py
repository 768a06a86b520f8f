"""An aarch64 Python with the packages of an agent in a folder of this machine, to be run by qemu-user.

Nothing is installed in the system, and no user needs more rights for it. Debian's packages come from the sources of the
system's apt, checked with its keys, but for arm64; Python's have the versions and hashes in ``requirements.txt``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REQUIREMENTS: Final = Path(__file__).with_name("requirements.txt")

PACKAGES: Final = ("python3", "libstdc++6")
"""Debian's packages for arm64; their dependencies follow."""
QEMU: Final = "qemu-user-static"
PLATFORM: Final = "aarch64-manylinux_2_28"
"""The wheels that a Jetson with JetPack 5 or later can have."""


@dataclass(frozen=True)
class Userland:
    """Programs of another architecture.

    Parameters
    ----------
    python
        Command that starts its Python.
    environment
        Variables that its processes need in addition.
    versions
        What it consists of, for people.
    """

    python: tuple[str, ...]
    environment: Mapping[str, str]
    versions: tuple[str, ...]


def unpack(folder: Path, wheel: Path, uv: str, python: Path | None = None) -> Userland:
    """Return the userland in a folder, which is filled unless it has been before.

    Parameters
    ----------
    wheel
        Wheel of this project.
    uv
        Program that installs Python's packages.
    python
        An aarch64 Python to use in place of Debian's, such as that of a python-build-standalone.
    """
    root, qemu = folder / "root", folder / "qemu"
    _debian(folder, root, PACKAGES, "arm64")
    _debian(folder, qemu, (QEMU,), _own_architecture(), alone=True)
    emulator = (str(qemu / "usr/bin/qemu-aarch64-static"), "-L", str(root))
    own = python or next(iter((root / "usr/bin").glob("python3.[0-9]*[0-9]")))
    version = _output([*emulator, str(own), "-c", "import platform; print(platform.python_version())"])
    site = folder / f"site-{version}"
    shutil.rmtree(site, ignore_errors=True)
    install = [uv, "pip", "install", "--quiet", "--target", str(site), "--only-binary", ":all:"]
    install += ["--python-platform", PLATFORM, "--python-version", version]
    subprocess.run([*install, "--require-hashes", "--requirement", str(REQUIREMENTS)], check=True)
    subprocess.run([*install, "--no-deps", str(wheel)], check=True)
    packages = [*_versions(qemu, QEMU), *([] if python else _versions(root, "python3.")), *_versions(root, "libc6")]
    return Userland((*emulator, str(own)), {"PYTHONPATH": str(site)}, (*packages, f"Python {version}"))


def _debian(folder: Path, root: Path, names: tuple[str, ...], architecture: str, *, alone: bool = False) -> None:
    """Unpack Debian's packages, with what they depend on unless ``alone``, below ``root``."""
    if root.is_dir():
        return
    state = folder / f"apt-{architecture}"
    archives = state / "cache/archives"
    for place in (state / "lists/partial", archives / "partial"):
        place.mkdir(parents=True, exist_ok=True)
    (state / "status").touch()  # as if nothing were installed
    (state / "apt.conf").write_text(
        f'APT::Architecture "{architecture}";\n'
        f'APT::Architectures {{ "{architecture}"; }};\n'
        f'Dir::State::Lists "{state}/lists";\n'
        f'Dir::State::status "{state}/status";\n'
        f'Dir::Cache "{state}/cache";\n'
        'APT::Install-Recommends "false";\n'
        'APT::Sandbox::User "";\n'
        'Debug::NoLocking "true";\n'
    )
    variables = os.environ | {"APT_CONFIG": str(state / "apt.conf")}
    apt_get, dpkg_deb = _tool("apt-get"), _tool("dpkg-deb")
    subprocess.run([apt_get, "update", "-qq"], check=True, env=variables)
    get = ["download", "-qq"] if alone else ["install", "-qq", "--yes", "--download-only"]
    subprocess.run([apt_get, *get, *names], check=True, env=variables, cwd=archives, stdout=subprocess.DEVNULL)
    unpacked = root.with_name(f"{root.name}.part")
    shutil.rmtree(unpacked, ignore_errors=True)
    for archive in sorted(archives.glob("*.deb")):
        subprocess.run([dpkg_deb, "--extract", str(archive), str(unpacked)], check=True)
        name, version = _output([dpkg_deb, "--show", str(archive)]).split("\t")
        with (unpacked / "versions").open("a") as listed:
            listed.write(f"{name.partition(':')[0]} {version}\n")
    unpacked.rename(root)


def _versions(root: Path, name: str) -> list[str]:
    return [line for line in (root / "versions").read_text().splitlines() if line.startswith(name)]


def _own_architecture() -> str:
    return _output([_tool("dpkg"), "--print-architecture"])


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"this needs Debian, or a system with its packages: there is no {name}")
    return found


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
