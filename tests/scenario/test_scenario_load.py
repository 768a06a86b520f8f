from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from planner.errors import ScenarioError
from planner.scenario import check
from planner.scenario.document import read_document
from planner.scenario.load import load_instance, load_scenario, read_trace
from planner.scenario.types import ScenarioSpec
from planner.units import read_quantity
from tests.scenario.examples import GOOD, changed, write
from tests.scenario.golden import BAD, messages

BAD_FILES = sorted(BAD.glob("*.yaml"))


def test_quantities_become_si(tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, GOOD))
    assert scenario.workers["gate"].memory_bytes == 3 * 2**30
    assert scenario.workers["gate"].base_memory_bytes == 200 * 2**20
    assert scenario.workers["yard"].base_memory_bytes == 100 * 2**20
    assert scenario.networks["wifi"].bandwidth_bytes_per_s == pytest.approx(6.75e6)
    assert scenario.networks["wifi"].latency_s == pytest.approx(3e-3)
    camera = scenario.sources["gate-camera"]
    assert (camera.rate_per_s, camera.max_mean_delay_s, camera.deadline_s) == pytest.approx((5.0, 0.25, 0.4))
    assert scenario.objective.accuracy_worth_s == pytest.approx(0.05)
    assert [event.at_s for event in scenario.events] == pytest.approx([60.0, 120.0])
    assert scenario.networks["wire"].links == (("yard", "hall"),)


def test_order_of_the_file_is_kept(tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, GOOD))
    assert tuple(scenario.workers) == ("gate", "yard", "hall")
    assert tuple(scenario.sources) == ("gate-camera", "yard-camera")


def test_a_scenario_handed_on_as_json_is_in_si(tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, GOOD))
    assert ScenarioSpec.model_validate_json(scenario.model_dump_json()) == scenario
    assert ScenarioSpec.model_validate_json(scenario.model_dump_json(by_alias=True)) == scenario


@pytest.mark.parametrize("path", BAD_FILES, ids=lambda path: path.stem)
def test_every_fault_of_a_bad_file_is_reported(path: Path) -> None:
    assert messages(path) == path.with_suffix(".txt").read_text(encoding="utf-8")


def test_every_golden_message_has_its_file() -> None:
    assert {path.stem for path in BAD.glob("*.txt")} == {path.stem for path in BAD_FILES}


RULES = [function for name, function in inspect.getmembers(check, inspect.isfunction) if name.startswith("check_")]


def test_all_rules_are_run() -> None:
    assert {*check.CHECKS, check.check_scenario} == set(RULES)


@pytest.mark.parametrize("rule", check.CHECKS, ids=lambda rule: rule.__name__)
def test_every_rule_has_a_bad_file(rule: check.Check) -> None:
    found = []
    for name in ("names", "rules", "decode"):
        document = read_document(BAD / f"{name}.yaml")
        found += list(rule(ScenarioSpec.model_validate(document.data, context={"quantity": read_quantity})))
    assert found


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as caught:
        load_scenario(tmp_path / "none.yaml")
    assert str(caught.value) == f"{tmp_path / 'none.yaml'}: no such file; expected a scenario file (YAML)"


def test_a_folder_is_no_scenario(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"cannot be read: .*directory"):
        load_scenario(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("54 Mbit/s", "54", 11, "networks.wifi.bandwidth: a bare number needs a unit; found 54; expected a bandwidth"),
        ("rate: 5 /s", "rate: -5 /s", 14, "sources.gate-camera.rate: must not be negative; found '-5 /s'"),
        ("worker: gate,", "worker: gaet,", 14, "sources.gate-camera.worker: unknown worker; found 'gaet'"),
        ("memory: 3 GiB", "memory: 3 Gib", 7, "workers.gate.memory: unknown unit 'Gib'; found '3 Gib'"),
        ("deadline:", "dead_line:", 15, "sources.gate-camera.dead_line: unknown key; found 'dead_line'; expected 'dea"),
    ],
)
def test_one_change_gives_one_message(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    path = write(tmp_path, changed((old, new)))
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    assert len(caught.value.faults) == 1
    assert str(caught.value).startswith(f"{path}:{line}: {message}")


def test_a_wrong_worker_entry_does_not_make_its_name_unknown(tmp_path: Path) -> None:
    path = write(tmp_path, changed(("{device_class: small, memory: 3 GiB, speed: 0.5}", "3 GiB")))
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    assert [fault.what for fault in caught.value.faults] == ["does not fit"]


def test_without_any_worker_entry_names_are_not_called_unknown(tmp_path: Path) -> None:
    path = write(tmp_path, changed(("workers:", "worker_list:")))
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    assert [fault.what for fault in caught.value.faults] == ["unknown key"]


def test_a_trace_is_read(tmp_path: Path) -> None:
    path = tmp_path / "times.txt"
    path.write_text("0\n0.5\n\n0.5\n 2e0\n")
    assert read_trace(path) == (0.0, 0.5, 0.5, 2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "0\n1\n0.5\n",
            ":3: not an arrival time; found '0.5'; expected times in seconds, one per line, never decreasing",
        ),
        ("-1\n", ":1: not an arrival time; found '-1'; expected times in seconds, one per line, never decreasing"),
        ("soon\n", ":1: not an arrival time; found 'soon'; expected times in seconds, one per line, never decreasing"),
        ("1\nnan\n", ":2: not an arrival time; found 'nan'; expected times in seconds, one per line, never decreasing"),
        ("inf\n", ":1: not an arrival time; found 'inf'; expected times in seconds, one per line, never decreasing"),
        ("\n\n", ": no arrival times; expected times in seconds, one per line, never decreasing"),
    ],
)
def test_a_bad_trace_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "times.txt"
    path.write_text(text)
    with pytest.raises(ScenarioError) as caught:
        read_trace(path)
    assert str(caught.value) == f"{path}{message}"


def test_a_missing_trace_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"none\.txt: cannot be read"):
        read_trace(tmp_path / "none.txt")


def test_load_instance_reports_the_scenario_first(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="unknown worker"):
        load_instance(write(tmp_path, changed(("worker: gate,", "worker: gaet,"))))


@pytest.mark.parametrize("path", sorted(Path("examples").glob("*/scenario.yaml")), ids=lambda path: path.parent.name)
def test_every_example_is_sound(path: Path) -> None:
    assert load_scenario(path).sources


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf", "1e999", "9" * 400, "9" * 5000, "true", '"8"', "-8"])
@pytest.mark.parametrize(("key", "value"), [("priority", "8"), ("samples", "20"), ("speed", "0.5"), ("rate", "5 /s")])
def test_absurd_numbers_are_refused(tmp_path: Path, key: str, value: str, number: str) -> None:
    text = changed((f"{key}: {value}" + ("," if key == "rate" else ""), f"{key}: {number},"))
    with pytest.raises(ScenarioError, match=r"scenario\.yaml"):
        load_scenario(write(tmp_path, text))
