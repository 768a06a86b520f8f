"""PipeEdge's files: the value of a plan by PipeEdge's own rule, and what cannot be held."""

from __future__ import annotations

import json
from copy import deepcopy
from itertools import combinations, pairwise, permutations
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import planner
from planner.errors import InterchangeError, PlannerError
from planner.interchange.pipeedge import FILES
from planner.plan.types import Stage

BATCH = 4
TIMES_S = {"board": [0.07, 0.04, 0.09, 0.05, 0.06], "server": [0.05, 0.03, 0.07, 0.02, 0.04]}
BANDWIDTH = {"board": 100, "server": 200}
SENT = [150_000, 40_000, 300_000, 20_000, 10]
HOSTS = {"board": ["b-1", "b-2"], "server": ["192.0.2.1"]}
MEMORY_MB = {"board": 400.0, "server": 150.5}
LAYER_MB = [20.5, 30.25, 25.0, 30.0, 10.0]


def documents() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    profiles = {
        name: {"mem_MB": MEMORY_MB[name], "bw_Mbps": BANDWIDTH[name], "model_profiles": {"org/net": [profile(times)]}}
        for name, times in TIMES_S.items()
    }
    model = {"layers": 5, "parameters_in": 100_000, "parameters_out": SENT, "mem_MB": LAYER_MB}
    return deepcopy(({"org/net": model}, profiles, HOSTS))


def profile(times_s: list[float]) -> dict[str, Any]:
    return {"dtype": "torch.float32", "batch_size": BATCH, "time_s": times_s}


def write(folder: Path, *contents: Any) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name, content in zip(FILES, contents, strict=True):
        folder.joinpath(name).write_text(json.dumps(content))  # JSON is YAML
    return [folder / name for name in FILES]


def value_s(stages: list[tuple[str, int, int]]) -> float:
    """The value of a schedule by PipeEdge's rule: the largest time of a stage or of a transfer."""
    kind = {host: name for name, hosts in HOSTS.items() for host in hosts}
    times = [sum(TIMES_S[kind[host]][first - 1 : last]) for host, first, last in stages]
    for (sender, _, last), (receiver, _, _) in pairwise(stages):
        mbit = min(BANDWIDTH[kind[sender]], BANDWIDTH[kind[receiver]])
        times.append(4 * BATCH * SENT[last - 1] / (mbit * 1024 * 1024 / 8))
    return max(times)


def fits(stages: list[tuple[str, int, int]]) -> bool:
    """PipeEdge's rule for memory with its two buffers in and out."""
    kind = {host: name for name, hosts in HOSTS.items() for host in hosts}
    for host, first, last in stages:
        taken = 4 * BATCH * (SENT[first - 2] if first > 1 else 100_000)
        given = 4 * BATCH * SENT[last - 1]
        need = 2**20 * sum(LAYER_MB[first - 1 : last]) + (3 if first > 1 else 1) * taken + 3 * given
        if not MEMORY_MB[kind[host]] * 2**20 > need:
            return False
    return True


def all_schedules() -> list[list[tuple[str, int, int]]]:
    hosts = [host for names in HOSTS.values() for host in names]
    return [
        [(host, a + 1, b) for host, a, b in zip(order, (0, *cuts), (*cuts, 5), strict=True)]
        for count in (1, 2, 3)
        for cuts in combinations(range(1, 5), count - 1)
        for order in permutations(hosts, count)
    ]


def read_schedule(text: str) -> list[tuple[str, int, int]]:
    return [(host, *layers) for entry in YAML(typ="safe").load(text) for host, layers in entry.items()]


def test_plan_is_the_best_schedule_by_the_rules_of_pipeedge(tmp_path: Path) -> None:
    files = write(tmp_path / "in", *documents())
    converted = planner.convert("pipeedge", files, tmp_path / "out")
    plan = planner.solve(converted.scenario, max_visits=1)
    schedule = read_schedule(plan.export("pipeedge", tmp_path / "schedule.yml").text)
    uses = [use.utilisation for use in plan.workers.values()]
    uses += [use.utilisation for use in plan.networks.values()]
    rate_per_s = converted.scenario.spec.sources["samples"].rate_per_s
    assert rate_per_s is not None
    assert max(uses) / rate_per_s == pytest.approx(value_s(schedule), rel=1e-12)
    assert value_s(schedule) == min(value_s(other) for other in all_schedules() if fits(other))
    assert fits(schedule)
    assert read_schedule((tmp_path / "schedule.yml").read_text()) == schedule
    assert len(schedule) > 1


def test_every_plan_fits_the_memory_of_pipeedge(tmp_path: Path) -> None:
    converted = planner.convert("pipeedge", write(tmp_path, *documents()), tmp_path / "out")
    spec, costs = converted.scenario.spec, converted.scenario.instance.any_profile("org-net").blocks
    for stages in all_schedules():
        held = all(
            sum(block.weight_bytes for block in costs[first - 1 : last]) + costs[0].activation_bytes
            <= spec.workers[host].memory_bytes
            for host, first, last in stages
        )
        assert fits(stages) or not held


def test_a_schedule_gives_each_device_one_stage(tmp_path: Path) -> None:
    scenario = planner.convert("pipeedge", write(tmp_path, *documents()), tmp_path / "out").scenario
    plan = planner.solve(scenario, method="local")
    source = plan.sources["samples"]
    placed = [("b-1", 0, 0), ("b-2", 1, 1), ("b-1", 2, 4)]
    stages = tuple(Stage(worker=worker, first_block=first, last_block=last) for worker, first, last in placed)
    route = source.routes[0].model_copy(update={"stages": stages})
    returning = plan.spec.model_copy(update={"sources": {"samples": source.model_copy(update={"routes": (route,)})}})
    with pytest.raises(InterchangeError, match="max-visits 1"):
        planner.Plan(scenario, returning).export("pipeedge")
    half = route.model_copy(update={"share": 0.5, "stages": stages[:1]})
    shared = plan.spec.model_copy(update={"sources": {"samples": source.model_copy(update={"routes": (half, half)})}})
    with pytest.raises(InterchangeError, match="routes single"):
        planner.Plan(scenario, shared).export("saga")


def test_types_without_a_profile_are_left_out_and_told(tmp_path: Path) -> None:
    models, types, devices = documents()
    models["empty"] = {"layers": 0, "parameters_in": 0, "parameters_out": [], "mem_MB": []}
    types["old"] = {"bw_Mbps": 0, "mem_MB": 0, "model_profiles": None, "watts": 5}
    devices["old"] = ["o-1"]
    converted = planner.convert("pipeedge", write(tmp_path, models, types, devices), tmp_path / "out")
    told = " ".join(converted.notes)
    assert list(converted.scenario.workers) == ["b-1", "b-2", "192.0.2.1"]
    assert "old is left out" in told
    assert "old.watts" in told
    assert "'org/net' is org-net" in told


def change(*place: Any) -> Any:
    *outer, key, value = place
    files = documents()
    entry: Any = files
    for step in outer:
        entry = entry[step]
    if value is None:
        del entry[key]
    else:
        entry[key] = value
    return files


PROFILE = (1, "board", "model_profiles", "org/net", 0)


@pytest.mark.parametrize(
    ("files", "place"),
    [
        (change(0, "org/net", "mem_MB", None), "models.yml:1: org/net.mem_MB"),
        (change(0, "org/net", "parameters_in", "many"), "models.yml:1: org/net.parameters_in"),
        (change(0, "org/net", "mem_MB", [1.0]), "org/net.mem_MB"),
        (change(0, "org/net", "parameters_out", 0, -1), "parameters_out[0]"),
        (change(1, "board", "bw_Mbps", 0), "board.bw_Mbps"),
        (change(1, "board", "mem_MB", "400"), "board.mem_MB"),
        (change(*PROFILE, "time_s", 2, -0.1), "time_s[2]"),
        (change(*PROFILE, "time_s", 2, float("nan")), "time_s[2]"),
        (change(*PROFILE, "time_s", [1.0]), "time_s"),
        (change(*PROFILE, "dtype", None), "dtype"),
        (change(2, "tablet", ["t-1"]), "devices.yml: tablet"),
        (change(2, "server", ["b-1"]), "devices.yml: server[0]"),
        (change(2, "board", 3), "devices.yml:1: board"),
    ],
)
def test_bad_files_are_named_with_place(files: tuple[Any, ...], place: str, tmp_path: Path) -> None:
    paths = write(tmp_path, *files)
    for path in paths:  # YAML's own word for it
        path.write_text(path.read_text().replace("NaN", ".nan"))
    with pytest.raises(InterchangeError) as found:
        planner.convert("pipeedge", paths, tmp_path / "out")
    (fault,) = found.value.faults
    assert place in str(fault.where)
    assert fault.expected
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"model": "other"}, "--set model"),
        ({"batch_size": 3}, "--set batch_size"),
        ({"batches": 3}, "--set batches"),
        ({"batch_size": "many"}, "--set batch_size"),
        ({"buffers_in": -1}, "--set buffers_in"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], place: str, tmp_path: Path) -> None:
    with pytest.raises(PlannerError) as found:
        planner.convert("pipeedge", write(tmp_path, *documents()), tmp_path / "out", **options)
    assert str(found.value.faults[0].where) == place
    assert found.value.faults[0].expected or found.value.faults[0].value is not None


def test_names_that_yaml_reads_otherwise_are_quoted(tmp_path: Path) -> None:
    models, types, _ = documents()
    devices = {"board": ["no", "1"], "server": ["n-3"]}
    plan = planner.solve(
        planner.convert("pipeedge", write(tmp_path, models, types, devices), tmp_path / "out").scenario, max_visits=1
    )
    text = plan.export("pipeedge").text
    assert {host for host, _, _ in read_schedule(text)} <= {"no", "1", "n-3"}
