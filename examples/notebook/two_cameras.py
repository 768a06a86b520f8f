"""Plan, simulate and run inference for two cameras; each part below ``# %%`` is a cell of a notebook."""

# %% A model, and a scenario with a shipped profile of it. A file works as well: planner.load_scenario("scenario.yaml")
from pathlib import Path

import numpy as np

import planner

PROFILES = Path(__file__).resolve().parents[2] / "profiles"
FOLDER = Path("runs/notebook")

planner.build_model("mobilenetv2-96", FOLDER / "mobilenetv2-96.onnx")
scenario = planner.Scenario.from_dict(
    {
        "profiles": [PROFILES],
        "models": {"classifier": {"path": "mobilenetv2-96.onnx"}},
        "workers": {
            "camera-box": {"device_class": "x86-64", "memory": "512 MiB", "speed": 0.1},
            "office": {"device_class": "x86-64", "memory": "1 GiB", "speed": 0.4},
        },
        "networks": {"lan": {"kind": "shared", "members": ["camera-box", "office"], "bandwidth": "80 Mbit/s"}},
        "sources": {
            "gate": {"worker": "camera-box", "models": ["classifier"], "rate": "8 /s", "priority": 8, "samples": 200},
            "yard": {"worker": "camera-box", "models": ["classifier"], "rate": "8 /s", "samples": 200},
        },
    },
    folder=FOLDER,
)
scenario.save(FOLDER / "scenario.yaml")
print(scenario)

# %% Which worker runs which blocks
plan = planner.solve(scenario, time_limit_s=10)
plan.save(FOLDER / "plan.json")
plan.plot(FOLDER / "plan.svg")
print(plan)


# %% Compare a policy of your own with the plan, in virtual time
class YardFirst(planner.policies.PriorityPolicy):
    def priority(self, view, source):
        return 2.0 if source == "yard" else 1.0


planner.policies.register("yard-first", lambda instance: YardFirst())
print(planner.compare_policies(scenario, plan, policies=["planned", "adaptive", "yard-first"], replications=3))

# %% Run the plan on real agents, one process per worker
with planner.Session(plan) as session:
    image = np.random.default_rng(0).standard_normal((1, 3, 96, 96), np.float32)
    futures = [session.source("gate").submit({"input": image}) for _ in range(10)]
    results = [future.result() for future in futures]
(scores,) = results[0].outputs.values()
print(f"{len(results)} results; class {scores.argmax()} after {1e3 * results[0].delay_s:.1f} ms")

# %% Measure the same, and compare it with the prediction
verdict = planner.validate(plan, max_samples=20)
print(verdict)
