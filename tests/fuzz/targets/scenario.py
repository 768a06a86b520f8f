"""Scenario files, and what is done with one that is valid: a simulation and a plan."""

from __future__ import annotations

import planner
from tests.fuzz.judge import Target
from tests.fuzz.mutate import RAW_YAML, mutated, text_or_bytes
from tests.fuzz.seeds import ROOT, one_of, put, yaml_file

FILES = ["changing", "exits", "jetsons", "sizing", "two-cameras"]
SEEDS = [yaml_file(f"examples/{name}/scenario.yaml") for name in FILES]
SEEDS += [yaml_file(f"examples/{name}.yaml") for name in ("ms-mdi/workers-3", "pa-mdi/multi-hop", "pa-mdi/ring")]
for seed in SEEDS:
    seed["profiles"] = [str(ROOT / "profiles")]
    for model in seed["models"].values():
        model["profile"] = "resnet56" if "resnet" in str(model) else "mobilenetv2"
        model.pop("path", None)
        model.pop("predictions", None)
    for worker in seed["workers"].values():
        worker["device_class"] = "x86-64"
    for source in seed["sources"].values():
        source["samples"] = 10
MOST_SAMPLES = 1000


def read(case: bytes) -> None:
    """Load a scenario; if it is valid and short, find a plan and simulate it."""
    scenario = planner.load_scenario(put("scenario.yaml", case))
    str(scenario)
    if sum(source.samples for source in scenario.spec.sources.values()) > MOST_SAMPLES:
        return
    plan = planner.solve(scenario, method=one_of(case, ("search", "colgen", "ar-mdi")), time_limit_s=0.5, progress=None)
    plan.to_dict()
    planner.simulate(scenario, plan, policy=one_of(case, ("planned", "adaptive", "ms-mdi", "pa-mdi")), progress=None)


TARGET = Target("scenario", text_or_bytes(mutated(SEEDS, RAW_YAML)), read, share=0.5)
