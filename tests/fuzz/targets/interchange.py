"""Files of other projects, made into scenarios; and what measured devices are fitted to."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from functools import cache
from typing import Any, Final

from hypothesis import strategies as st

import planner
from planner.interchange.pipeedge import FILES
from planner.profiling.adapt import adapt
from planner.profiling.device_probe import load_probe
from tests.fuzz.judge import Target
from tests.fuzz.mutate import ODD, RAW_JSON, RAW_YAML, Draw, damaged, mutated, text_or_bytes
from tests.fuzz.seeds import folder
from tests.fuzz.targets.scenario import MOST_SAMPLES
from tests.interchange import test_distilp as distilp
from tests.interchange import test_helix as helix
from tests.interchange import test_nn_meter as nn_meter
from tests.interchange import test_pipeedge as pipeedge
from tests.interchange import test_saga as saga
from tests.profiling.small_chain import SmallModel

DOCUMENTS: Final[dict[str, dict[str, Any]]] = {
    "pipeedge": dict(zip(FILES, pipeedge.documents(), strict=True)),
    "saga": {"instance.json": saga.instance()},
    "distilp": {"model_profile.json": distilp.MODEL, "device-0.json": distilp.CPU, "device-1.json": distilp.GPU},
    "probe": {
        "probe.json": {
            "schema": "planner/device-probe/v1", "device_class": "d", "environment": {"provider": "cpu"},
            "kernels": [
                {"name": f"{kind}-{size}", "time_s": size / 1000, "std_s": 1e-5,
                 "work": {kind: {"kernels": 1, "flop": 1e9 * size, "activation_bytes": 1e6, "weight_bytes": 1e5}}}
                for kind, size in itertools.product(("convolution", "matmul", "elementwise"), range(1, 6))
            ],
        }
    },
}  # fmt: skip
TEXTS: Final[dict[str, dict[str, str]]] = {
    "helix": {
        "cluster.ini": helix.CLUSTER, "machine_profile.ini": helix.PROFILES,
        **{f"{kind}/prompt_bs2time.csv": text for kind, text in helix.TABLES.items()},
    },
    "nn-meter": {"predictions.csv": nn_meter.HEADER + nn_meter.ROWS},
}  # fmt: skip
OPTIONS: Final[dict[str, dict[str, Any]]] = {"helix": helix.OPTIONS, "nn-meter": {"bandwidth": "54 Mbit/s"}}
_TOKEN: Final = re.compile(r"[^\s,=\[\]\"*]+|[=,*\"\]\[]")


@cache
def originals(kind: str) -> dict[str, bytes]:
    """Return the files of a format, unchanged, by name."""
    if kind in TEXTS:
        return {name: text.encode() for name, text in TEXTS[kind].items()}
    return {name: json.dumps(document).encode() for name, document in DOCUMENTS[kind].items()}


@st.composite
def reworded(draw: Draw, text: str) -> str:
    """Return a text with one to three of its words replaced, removed or repeated."""
    for _ in range(draw(st.integers(1, 3))):
        words = list(_TOKEN.finditer(text))
        if not words:
            break
        word = draw(st.sampled_from(words))
        new = draw(st.one_of(st.sampled_from(ODD).map(str), st.sampled_from(words).map(lambda one: one[0])))
        text = text[: word.start()] + new + text[word.end() :]
    return text


@st.composite
def files(draw: Draw) -> tuple[str, str, bytes]:
    """Return a format, the name of one of its files, and malformed content of it."""
    kind = draw(st.sampled_from([*DOCUMENTS, *TEXTS]))
    name = draw(st.sampled_from(sorted(originals(kind))))
    if kind in TEXTS:
        content = draw(text_or_bytes(reworded(TEXTS[kind][name])))
    else:
        raw = RAW_YAML if kind == "pipeedge" else RAW_JSON
        content = draw(text_or_bytes(mutated([DOCUMENTS[kind][name]], raw)))
    return kind, name, draw(damaged([content])) if draw(st.integers(0, 15)) == 0 else content


def read(case: tuple[str, str, bytes]) -> None:
    """Convert the files of a format, one of which is malformed; find a plan for what comes out."""
    kind, changed, content = case
    place = folder() / "peers" / kind
    shutil.rmtree(place, ignore_errors=True)
    paths = []
    for name, original in originals(kind).items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if name == changed else original)
        paths.append(path)
    if kind == "probe":
        str(load_probe(paths[0]))
        str(adapt("d", paths))
        return
    if kind == "nn-meter":
        (place / "net.onnx").write_bytes(SmallModel(3).model_bytes())
        paths.append(place / "net.onnx")
    converted = planner.convert(kind, paths, place / "out", **OPTIONS.get(kind, {}))
    str(converted)
    sources = converted.scenario.spec.sources
    if sum(source.samples for source in sources.values()) <= MOST_SAMPLES:
        planner.solve(converted.scenario, method="local", time_limit_s=0.5, progress=None).to_dict()


TARGET = Target("interchange", files(), read)
