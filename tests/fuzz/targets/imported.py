"""Profiles of other tools (onnxruntime, trtexec) and published figures of device classes."""

from __future__ import annotations

from hypothesis import strategies as st

from planner.profiling.device_classes import fit, load_class
from planner.profiling.importers import import_profile
from tests.fuzz.judge import Target
from tests.fuzz.mutate import RAW_YAML, mutated, text_or_bytes
from tests.fuzz.seeds import ROOT, json_file, put, yaml_file
from tests.profiling.small_chain import SmallModel

MODEL = SmallModel(3)
NAMES = [f"{kind}{index}" for index in range(3) for kind in ("mul", "act")]
TRTEXEC = [{"count": 100}, *({"name": name, "timeMs": 9.0, "averageMs": 0.09, "percentage": 1} for name in NAMES)]
ONNXRUNTIME = [
    {"cat": "Session", "pid": 1, "tid": 1, "dur": 900, "ts": 1, "ph": "X", "name": "model_run", "args": {}},
    *(
        {
            "cat": "Node", "pid": 1, "tid": 1, "dur": 9, "ts": 10 * index, "ph": "X", "name": f"{name}_kernel_time",
            "args": {"op_name": "MatMul", "provider": "CPUExecutionProvider", "node_index": str(index)},
        }
        for index, name in enumerate(NAMES)
    ),
]  # fmt: skip
REAL = sorted((ROOT / "tests/profiling/onnxruntime_profiles").glob("*.json"))
TIMES = [TRTEXEC, ONNXRUNTIME, *(json_file(str(path.relative_to(ROOT))) for path in REAL[:3])]
CLASSES = [yaml_file(f"profiles/classes/{name}.yaml") for name in ("jetson-nano", "jetson-orin-nano", "jetson-tx2")]


def read(case: tuple[str, bytes]) -> None:
    """Import times, or fit a device class."""
    kind, content = case
    if kind == "class":
        fit(load_class(str(put("class.yaml", content))))
    else:
        str(import_profile(MODEL, put("times.json", content), device_class="old"))


CASES = st.one_of(
    text_or_bytes(mutated(TIMES)).map(lambda content: ("times", content)),
    text_or_bytes(mutated(CLASSES, RAW_YAML)).map(lambda content: ("class", content)),
)
TARGET = Target("imported", CASES, read)
