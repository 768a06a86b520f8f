"""Where an agent runs: what tells several agents of one name apart, for the network and for people.

An agent states it in the key of its presence, so that all members know it, also those without a link to the agent. It
is a statement for people to read; nothing is decided by it.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass, replace
from typing import Final

_UNNAMED: Final = "-"
_NO_PART_OF_A_NAME: Final = re.compile(r"[^\w.-]+")
_LABEL: Final = re.compile(r"(\d{1,10})@([\w.-]{1,255})@([\w.:\[\]%-]{1,300})")
_ANY_ADDRESS: Final = frozenset({"0.0.0.0", "[::]", "::"})  # noqa: S104 - compared with, not listened on


@dataclass(frozen=True)
class Whereabouts:
    """Where an agent runs; the default stands for one that did not say.

    Parameters
    ----------
    address
        ``HOST:PORT`` that it listens on.
    host
        Name of its device.
    process_id
        Number of its process on that device.
    reached_at
        The device's address, as seen from here; empty if the agent is only reached through others.
    """

    address: str = ""
    host: str = ""
    process_id: int = 0
    reached_at: str = ""

    @classmethod
    def here(cls, address: str) -> Whereabouts:
        """Return those of this process, which listens on ``address``."""
        return cls(address, platform.node(), os.getpid())

    @classmethod
    def from_label(cls, label: str) -> Whereabouts:
        """Return what :attr:`label` states; nothing for any other text."""
        match = _LABEL.fullmatch(label)
        return cls(match[3], match[2], int(match[1])) if match else cls()

    @property
    def label(self) -> str:
        """The statement as a part of a key."""
        host = _NO_PART_OF_A_NAME.sub("-", self.host)[:255] or _UNNAMED
        return f"{self.process_id}@{host}@{self.address}"

    def seen(self, remote: str) -> Whereabouts:
        """Return them, completed by the other end of a link to the agent, as ``HOST:PORT``."""
        host, _, port = self.address.rpartition(":")
        reached_at = remote.rpartition(":")[0]
        address = f"{reached_at}:{port}" if reached_at and host in _ANY_ADDRESS else self.address
        return replace(self, address=address, reached_at=reached_at)

    def __str__(self) -> str:
        """Return them as text: ``127.0.0.1:40001 on edge-1 (192.0.2.7), process 812``."""
        if not self.address:
            return self.reached_at or "an unknown address"
        apart = self.reached_at and self.reached_at != self.address.rpartition(":")[0]
        return f"{self.address} on {self.host}{f' ({self.reached_at})' if apart else ''}, process {self.process_id}"
