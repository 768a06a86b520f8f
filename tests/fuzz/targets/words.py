"""Words of the command line, for every command; what would start agents or measure is only parsed."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from ruamel.yaml import YAML
from typer.main import get_command

import planner
from planner.cli import _build, main
from planner.cli.examples import EXAMPLES
from tests.cli.command import _disarm
from tests.fuzz.judge import Target
from tests.fuzz.mutate import Draw
from tests.fuzz.seeds import ROOT, folder
from tests.fuzz.targets import imported, profile
from tests.profiling.small_chain import SmallModel

RUN = [
    "inspect m.onnx --max-blocks 3", "inspect m.onnx --finest --json --shape t0=1,32", "inspect m.onnx --axis n=1",
    "split m.onnx --cuts 1,2 -o parts --inputs x.npz", "split m.onnx --cuts 1 -o parts --no-check --json",
    "profile show p.json", "profile scale p.json --by 2.5 --device-class slow -o scaled.json",
    "profile diff p.json p.json --json", "profile import m.onnx t.json --device-class old -o imported.json",
    "profile estimate m.onnx --device-class jetson-nano -o estimated.json", "models list --json",
    "solve s.yaml -o plan.json --method local --time-limit 1s --gap 0.01 --seed 1 --threads 1 --rank surrogate",
    "solve s.yaml --method search --time-limit 0.2s --pin s:0-1=b --max-visits 2 --start plan0.json --require-gap 5%",
    "solve s.yaml --method colgen --routes shared --time-limit 1s --json", "simulate s.yaml --plan plan0.json --seed 2",
    "simulate s.yaml --policy pa-mdi --repeat 2 -o simulated --json", "export plan0.json --annotate annotated.onnx",
    "certs certs a b --days 30 --json",
]  # fmt: skip
PARSED = [line.removeprefix("planner ") for lines in EXAMPLES.values() for line in lines]
ODD = [
    "", " ", "-", "--", "-h", "--json", "--debug", "x", "0", "1", "-1", "1.5", "nan", "inf", "1e308", "1e-308",
    "9" * 30,
    "9" * 5000, str(2**63), "..", "../..", "../../x", "a/b", ".", "/dev/null", "/proc/x/y", "x" * 5000, "é", "\udc80",
    "\x1b[2J", "a\nb", "a=b", "=", "=1", "a=", "x=" + "9" * 400, "t0=1,32,1", "t0=" + "1," * 70 + "1", "t0=0", "n=0",
    "1,2,3",
    "1,,2", ",", "3,1", "s:0=b", "s:5-1=b", "s:annotated", "s:0-" + "9" * 20 + "=a", ":", "0s", "1e999s", "5 min",
    "101%",
    "a", "ca", "_coordinator", "m.onnx", "p.json", "s.yaml", "x.npz", "plan0.json", "t.json", "empty", "text", "auto",
    "dp",
    "all", "planned", "shared", "single", "evaluated", "gpu(", "gpu(x); cpu(=y)", "*", "$(x)", "'", '"', "--seed", "-o",
]  # fmt: skip


@cache
def home() -> Path:
    """Return the folder in which the commands run, with a file of each kind."""
    place = folder() / "a" / "b" / "c" / "d"
    place.mkdir(parents=True)
    (place / "m.onnx").write_bytes(SmallModel(3).model_bytes())
    np.savez(place / "x.npz", t0=np.ones((1, 32), np.float32))
    chain = planner.load_chain(place / "m.onnx", max_blocks=3)
    made = planner.estimate(chain, device_class=str(ROOT / "profiles/classes/jetson-nano.yaml"))
    planner.save_profile(made.model_copy(update={"device_class": "d"}), place / "p.json")
    planner.save_profile(made.model_copy(update={"device_class": "d"}), place / "d" / "m.json")
    (place / "t.json").write_text(json.dumps(imported.TRTEXEC), encoding="utf-8")
    document = profile.SCENARIO | {"models": {"m": {"path": "m.onnx", "max_blocks": 3}}}
    with (place / "s.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(document, file)
    planner.solve(place / "s.yaml", method="local", progress=None).save(place / "plan0.json")
    (place / "empty").write_bytes(b"")
    (place / "text").write_text("text", encoding="utf-8")
    return place


@st.composite
def lines(draw: Draw) -> tuple[bool, list[str]]:
    """Return a command line after one to three changes, and whether it is carried out."""
    carried_out = draw(st.booleans())
    words = draw(st.sampled_from(RUN if carried_out else PARSED)).split()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(1, len(words) - 1)) if len(words) > 1 else 0
        match draw(st.integers(0, 4)):
            case 0 if len(words) > 1:
                del words[at]
            case 1:
                words.insert(at, draw(st.sampled_from(ODD)))
            case 2:
                words.insert(at, words[at])
            case _:
                words[at] = draw(st.sampled_from(ODD))
    return carried_out, words


def read(case: tuple[bool, list[str]]) -> None:
    """Carry out a command line, or only parse it."""
    carried_out, words = case
    before = Path.cwd()
    os.chdir(home())
    try:
        if carried_out:
            main(words)
        else:
            root = get_command(_build(words))
            _disarm(root)
            root.main(words)
    finally:
        os.chdir(before)


TARGET = Target("words", lines(), read, share=0.05)
