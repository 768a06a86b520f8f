"""The systemd unit of an agent, for the whole device or for one user; nothing is started here."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from planner.errors import UsageError
from planner.files import write_text_atomic

Scope = Literal["system", "user"]

MARK: Final = "# Written by `planner agent --install-service`, which replaces and removes only such files."

_SYSTEM: Final = Path("/etc/systemd/system")
_ACCOUNT: Final = "planner"
"""The user as whom agents run, where there is one of that name."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")


def unit_name(worker: str) -> str:
    """Return the name of the unit of a worker's agent."""
    return f"planner-agent-{worker}"


def unit_path(worker: str, scope: Scope) -> Path:
    """Return the file of the unit of a worker's agent."""
    if scope == "system":
        folder = _SYSTEM
    else:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd/user"
    return folder / f"{unit_name(worker)}.service"


def unit_text(worker: str, command: Sequence[str], scope: Scope) -> str:
    """Return the unit that runs a command as a worker's agent.

    Parameters
    ----------
    command
        Words of the command, the first of which is the absolute path of a program.
    """
    account = _account() if scope == "system" else None
    return "\n".join([
        MARK,
        "[Unit]",
        f"Description=planner agent {worker}: runs blocks of models for a coordinator",
        *(["Wants=network-online.target", "After=network-online.target"] if scope == "system" else []),
        "",
        "[Service]",
        f"ExecStart={' '.join(map(_quoted, command))}",
        *([f"User={account}"] if account is not None else []),
        "Restart=always",
        "RestartSec=2",
        "# It leaves cleanly within a second; what does not is killed, and the others go on without it.",
        "TimeoutStopSec=10",
        "NoNewPrivileges=yes",
        "",
        "[Install]",
        f"WantedBy={'multi-user' if scope == 'system' else 'default'}.target",
        "",
    ])  # fmt: skip


def install_unit(worker: str, text: str, scope: Scope) -> bool:
    """Write a unit; return whether that changed anything.

    Raises
    ------
    UsageError
        If there is another file in its place, or the folder cannot be written.
    """
    path = unit_path(worker, scope)
    if _ours(path) and path.read_text(encoding="utf-8") == text:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, text)
    except PermissionError:
        raise UsageError(
            "this user may not write the unit", where=str(path), expected="sudo, or --install-service user"
        ) from None
    return True


def remove_unit(worker: str, scope: Scope) -> bool:
    """Remove a unit; return whether there was one.

    Raises
    ------
    UsageError
        If there is another file in its place, or the service is enabled, or the folder cannot be written.
    """
    path = unit_path(worker, scope)
    if not _ours(path):
        return False
    if any(path.parent.glob(f"*.wants/{path.name}")):
        raise UsageError(
            "the service is enabled",
            where=str(path),
            expected=f"`{manage(scope)} disable --now {unit_name(worker)}` first",
        )
    try:
        path.unlink()
    except PermissionError:
        raise UsageError("this user may not remove the unit", where=str(path), expected="sudo") from None
    return True


def manage(scope: Scope) -> str:
    """Return the command that manages the services of a scope."""
    return "systemctl" if scope == "system" else "systemctl --user"


def _ours(path: Path) -> bool:
    """Return whether there is a unit that was written here; refuse any other file."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return False
    if not text.startswith(MARK):
        raise UsageError("this file was not written by --install-service", where=str(path), expected="another --name")
    return True


def _account() -> str:
    """Return the user as whom the agent is to run: ``planner`` if there is one, else the one who asks."""
    known = {entry.pw_name for entry in pwd.getpwall()}
    return _ACCOUNT if _ACCOUNT in known else os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name


def _quoted(word: str) -> str:
    """Return a word of a command as systemd reads it."""
    escaped = word.replace("%", "%%").replace("$", "$$")
    if _PLAIN.fullmatch(word):
        return escaped
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'
