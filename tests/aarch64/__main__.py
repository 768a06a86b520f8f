"""Run every policy on an aarch64 agent under qemu-user beside one of this machine: ``python -m tests.aarch64 WHEEL``.

Sources at both agents have samples of MobileNetV2 in float32 and in int8; the plan cuts both models between the agents.
Every sample must complete once, with the whole model's outputs. Delays are not looked at: qemu's are nobody's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import planner
from planner.execution.wire.zenoh import free_port
from planner.policy.registry import POLICIES
from planner.runtime.quantise import build_quantised
from planner.trace.records import BlockRecord
from tests.aarch64.userland import Userland, unpack

OWN, OTHER = "own", "other"
MODELS: Final = ("mobilenetv2", "mobilenetv2-int8")
BLOCKS: Final = 8
TRIES: Final = 5
"""How often agents are asked: an emulated one may not answer in time on a busy machine."""
FREE: Final = ("ddi", "adaptive")
"""Policies that may find the emulated agent too slow for any sample, though it is the home of half of them."""

WORKERS: Final = f"""\
schema: planner/scenario/v1
profiles: [profiles]
workers:
  {OWN}:   {{device_class: this-machine, memory: 1 GiB}}
  {OTHER}: {{device_class: this-machine, memory: 1 GiB, speed: 0.05}}
networks:  # slow enough that some samples stay
  lan: {{kind: shared, members: [{OWN}, {OTHER}], bandwidth: 2 Mbit/s, latency: 1 ms}}
policy: {{pace: {{slow: 1000}}}}  # the plan is kept, however slow the emulator is
"""


def main() -> int:
    """Return 1 if a run failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.aarch64", description=__doc__)
    parser.add_argument("wheel", type=Path, help="wheel of this project")
    parser.add_argument("--folder", type=Path, default=Path("build/aarch64"), help="where everything is unpacked")
    parser.add_argument("--uv", default="uv", help="the program uv")
    parser.add_argument("--python", type=Path, help="an aarch64 Python to use in place of Debian's")
    parser.add_argument("--samples", type=int, default=4, help="samples of each source")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="models to run")
    parser.add_argument("--policies", nargs="+", default=POLICIES, help="policies to run")
    words = parser.parse_args()
    folder = words.folder.resolve()
    userland = unpack(folder, words.wheel.resolve(), words.uv, words.python and words.python.resolve())
    _print(", ".join(userland.versions))
    plan = make_plan(folder / "run", words.models, words.samples)
    failed = 0
    with agents(folder / "run", userland) as address:
        described = devices(address)
        _print("; ".join(f"{name}: {what}" for name, what in described.items()))
        for policy in words.policies:
            faults = run(plan, address, policy)
            failed += bool(faults)
            for fault in faults:
                _print(f"  {fault}")
    return 1 if failed else 0


def make_plan(folder: Path, models: Sequence[str], samples: int) -> Path:
    """Return a plan file whose routes cut each model: samples of each agent end at the other."""
    described, sources, pins = "models:\n", "sources:\n", {}
    for name in models:
        model = folder / f"{name}.onnx"
        if not model.is_file():
            (build_quantised if name.endswith("int8") else planner.build_model)(name, model)
        measured = planner.profile(model, device_class="this-machine", max_blocks=BLOCKS, budget_s=10.0, progress=None)
        planner.save_profile(measured, folder / f"profiles/this-machine/{name}.json")
        described += f"  {name}: {{path: {model.name}, max_blocks: {BLOCKS}}}\n"
        for home, away in ((OWN, OTHER), (OTHER, OWN)):
            sources += f"  {name}-{home}: {{worker: {home}, models: [{name}], rate: 0.5 /s, samples: {samples}}}\n"
            pins[f"{name}-{home}"] = {0: home, BLOCKS - 1: away}
    (folder / "scenario.yaml").write_text(WORKERS + described + sources)
    plan = planner.solve(folder / "scenario.yaml", pins=pins, time_limit_s=20.0, progress=None)
    plan.save(folder / "plan.json")
    return folder / "plan.json"


@contextmanager
def agents(folder: Path, userland: Userland) -> Iterator[str]:
    """Run both agents; yield the address of one."""
    address, last = f"127.0.0.1:{free_port()}", ("--until-stdin-closes", "--cache")
    started = [
        subprocess.Popen(
            [*python, "-m", "planner", "agent", "--name", name, option, address, *last, str(folder / "blocks" / name)],
            stdin=subprocess.PIPE,
            stderr=log,
            env=os.environ | variables,
        )
        for name, python, variables, option in (
            (OWN, (sys.executable,), {}, "--listen"),
            (OTHER, userland.python, userland.environment, "--connect"),
        )
        for log in [(folder / f"{name}.log").open("wb")]
    ]
    try:
        yield address
    finally:
        for process in started:
            process.communicate(timeout=60)


def devices(address: str) -> dict[str, str]:
    """Return what `planner status` says of both agents' devices, once both are there."""
    command = [sys.executable, "-m", "planner", "status", OWN, OTHER, "--connect", address, "--wait", "600 s", "--json"]
    for _ in range(TRIES):
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["agents"]
        if {OWN, OTHER} <= set(found):
            break
    if missing := {OWN, OTHER} - set(found):
        raise SystemExit(f"no agent called {' or '.join(sorted(missing))} has come; its log is beside the plan")
    architectures = {name: state["device"]["architecture"] for name, state in found.items()}
    if architectures[OTHER] != "aarch64" or architectures[OWN] == "aarch64":
        raise SystemExit(f"the agents' architectures are {architectures}")
    return {
        name: f"{state['device']['architecture']}, Python {state['python']}, onnxruntime {state['onnxruntime']}"
        for name, state in found.items()
    }


def run(plan: Path, address: str, policy: str) -> list[str]:
    """Run a policy, print what came out, and return what is wrong."""
    begin_s = time.monotonic()
    verdict = planner.validate(
        plan, place="remote", connect=[address], policy=policy, ready_timeout_s=300.0, progress=None
    )
    result = verdict.to_dict()
    offered = sum(verdict.instance.samples(source) for source in verdict.instance.sources)
    workers = _workers(verdict)
    crossed = sum(len(own) > 1 for own in workers.values())
    busy = Counter(worker for own in workers.values() for worker in own)
    numerics = result["numerics"]
    _print(
        f"{policy:12} {offered} samples, {result['lost']} lost, {result['failed']} failed, {crossed} cut between both, "
        f"{busy[OTHER]} on aarch64, largest error {numerics['max_rel_error']:.1e}, {time.monotonic() - begin_s:.0f} s"
    )
    incidents = [f"{incident['worker']}: {incident['what']}" for incident in result["incidents"]]
    faults = [*result["faults"], *(incident for incident in incidents if "refused" in incident)]
    if not verdict.sound or numerics["samples"] != offered:
        faults.append(f"{numerics['samples']} of {offered} outputs were compared; sound: {verdict.sound}")
    if policy not in FREE and not (busy[OTHER] and busy[OWN]):
        faults.append(f"an agent computed nothing: {dict(busy)}")
    if policy == "planned" and crossed != offered:
        faults.append(f"{crossed} of {offered} samples were cut, which the plan says of all")
    return faults


def _workers(verdict: planner.Verdict) -> dict[tuple[str, int], set[str]]:
    """Return the agents that computed each sample."""
    found: dict[tuple[str, int], set[str]] = {}
    for record in verdict.validation.measurement.records:
        if isinstance(record, BlockRecord):
            found.setdefault((record.source, record.sample), set()).add(record.worker)
    return found


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
