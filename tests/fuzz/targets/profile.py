"""Profiles, and what is done with one that is valid: shown, compared, scaled, planned with and simulated."""

from __future__ import annotations

import planner
from tests.fuzz.judge import Target
from tests.fuzz.mutate import mutated, text_or_bytes
from tests.fuzz.seeds import folder, json_file, one_of, put

FILES = ["x86-64/mobilenetv2", "x86-64/resnet56-exits", "jetson-nano/resnet56-exits-fashion", "jetson-tx2/gpt2-small"]
SEEDS = [json_file(f"profiles/{name}.json") for name in FILES]
SCENARIO = {
    "profiles": ["."],
    "models": {"m": {"profile": "m"}},
    "workers": {name: {"device_class": "d", "memory": "4 GiB", "speed": 1 + (name == "b")} for name in "ab"},
    "networks": {"lan": {"kind": "shared", "members": ["a", "b"], "bandwidth": "100 Mbit/s"}},
    "sources": {"s": {"worker": "a", "models": ["m"], "rate": "5 /s", "samples": 10}},
}


def read(case: bytes) -> None:
    """Load a profile; if it is valid, use it in all ways."""
    path = put("profile.json", case)
    profile = planner.load_profile(path)
    str(profile)
    str(planner.diff(profile, profile))
    planner.save_profile(planner.scale(profile, 2.0, device_class="d"), folder() / "d" / "m.json")
    scenario = planner.Scenario.from_dict(SCENARIO, folder=folder())
    plan = planner.solve(scenario, method="local", time_limit_s=2.0, progress=None)
    planner.simulate(
        scenario, plan, policy=one_of(case, ("planned", "mdi", "ar-mdi", "ddi", "adaptive")), progress=None
    )


TARGET = Target("profile", text_or_bytes(mutated(SEEDS)), read, share=0.5)
