"""The compiled form of the protocol's file is that of the file."""

from __future__ import annotations

from tests.serve.protocol_file import MODULE, compiled, module


def test_the_descriptor_is_that_of_the_protocol() -> None:
    from planner.serve.protocol.descriptor import SERIALIZED

    assert compiled() == SERIALIZED
    assert module().split() == MODULE.read_text(encoding="utf-8").split()
