"""The commands and the YAML of all pages work, in their order, on files as the pages describe them.

What needs another device has its reason here, and the test that stands for it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Final

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from ruamel.yaml import YAML

from planner.scenario.load import load_instance
from tests.cli.command import planner
from tests.docs.pages import commands as commands_of
from tests.docs.pages import quick_words
from tests.model.batch_models import small_gpt2

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

ELSEWHERE: Final = {
    "guide.md": "tests/test_readme.py runs them",
    "guides/serve.md": "tests/serve/test_serve_guide.py runs them",
    "reference/cli.md": "generated: the examples are those of the commands' help",
    "reference/scenario-example.md": "tests/docs/test_docs_pages.py loads the scenario",
}
"""Pages whose commands are run by other tests."""

NEEDS: Final = {
    r"planner agent ": "runs until it is ended: the agents of tests/test_readme.py",
    r"planner probe ": "agents on other devices: tests/execution/test_execution_probe.py",
    r"planner status ": "agents on other devices: tests/execution/test_execution_probe.py",
    r"planner (run|serve) .*--share": "agents on other devices: tests/execution/test_execution_shares.py",
    r"planner validate .*--connect": "agents on other devices: the guide's, with agents, in tests/test_readme.py",
    r"planner profile .*--provider cuda": "an NVIDIA GPU",
    r"planner profile .*--beside": "a processor for each agent: tests/validation/test_validation_colocation.py",
    r"planner convert --from (helix|distilp|nn-meter) ": "files of other projects: tests/interchange",
    r"planner (convert|export) .*FORMAT": "the form of a command",
    r"planner solve .*--dask": "a cluster: tests/test_cluster.py",
}
"""Commands that cannot be run here, and what stands for them."""


def commands(page: str) -> list[str]:
    """Return the commands of a page."""
    return commands_of((DOCS / page).read_text(encoding="utf-8"))


def yaml_of(page: str) -> str:
    """Return the only YAML of a page: its lines that begin with a key of a scenario, and what is below these."""
    text = (DOCS / page).read_text(encoding="utf-8")
    (found,) = re.findall(
        r"(?:^    (?:models|workers|sources|policy|objective):.*\n(?:^     .*\n)*)+", text, flags=re.MULTILINE
    )
    return dedent(found)


def excused(command: str) -> bool:
    return any(re.match(pattern, command) for pattern in NEEDS)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after the page on the first plan."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        made, *others = commands("start/first-plan.md")
        shown = perform(made)
        assert dedent_of("start/first-plan.md", "wrote first/") == shown
        patch.chdir(folder / "first")
        for command in others:
            perform(command)
    return folder / "first"


def dedent_of(page: str, begin: str) -> str:
    """Return the block of a page that begins so."""
    text = (DOCS / page).read_text(encoding="utf-8")
    (found,) = re.findall(rf"^    {re.escape(begin)}.*\n(?:(?:    .*)?\n)*?(?=^\S)", text, flags=re.MULTILINE)
    return dedent(found).strip() + "\n"


def perform(command: str) -> str:
    """Run a command of a page, within a short time, and return what it prints."""
    words = quick_words(command)
    done = planner(*words)
    allowed = {0, 1} if words[0] == "validate" else {0}  # delays may be off on a busy machine
    assert done.returncode in allowed, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def detector(path: Path) -> None:
    """Write a small model with the input of the page: an image of any size, in a batch of any size."""
    rng = np.random.default_rng(0)
    nodes, weights, last = [], [], "images"
    for index, (channels, out) in enumerate([(3, 8), (8, 8), (8, 16), (16, 16), (16, 16)]):
        weights.append(
            onnx.numpy_helper.from_array(rng.standard_normal((out, channels, 3, 3)).astype(np.float32), f"w{index}")
        )
        nodes.append(helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], strides=[2, 2], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        last = f"r{index}"
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        initializer=weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def own_model(folder: Path, first: Path) -> Iterator[str]:
    detector(folder / "detector.onnx")
    for command in commands("start/own-model.md"):
        if command.startswith("planner solve"):  # the steps before it have described the scenario
            text = (first / "scenario.yaml").read_text(encoding="utf-8")
            text = re.sub(r"^models:\n(?:  .*\n)+", yaml_of("start/own-model.md"), text, flags=re.MULTILINE)
            text = text.replace("this-machine", "orin-cpu").replace("classifier", "detector")
            (folder / "scenario.yaml").write_text(text, encoding="utf-8")
        yield command


def choosing(folder: Path, first: Path) -> Iterator[str]:
    shutil.copytree(first, folder, dirs_exist_ok=True)
    yield from commands("guides/choosing.md")


def deadlines(folder: Path, first: Path) -> Iterator[str]:
    shutil.copytree(first, folder, dirs_exist_ok=True)
    text = (folder / "scenario.yaml").read_text(encoding="utf-8")
    text = re.sub(r"^sources:\n(?:  .*\n)+", yaml_of("guides/deadlines.md"), text, flags=re.MULTILINE)
    (folder / "scenario.yaml").write_text(text, encoding="utf-8")
    yield from commands("guides/deadlines.md")


def exits(folder: Path, first: Path) -> Iterator[str]:  # noqa: ARG001
    shutil.copy(ROOT / "models/resnet56-exits-fashion.onnx", folder / "model.onnx")
    with np.load(ROOT / "models/resnet56-exits-fashion.npz") as whole:
        np.savez(folder / "labelled.npz", **{name: whole[name][:64] for name in ("input", "label")})
    made, profiled, compared = commands("guides/exits.md")
    yield made
    yield profiled
    text = (folder / "exits/scenario.yaml").read_text(encoding="utf-8")
    text = re.sub(r"^(?:sources|objective):.*\n(?:  .*\n)*", "", text, flags=re.MULTILINE)
    own = yaml_of("guides/exits.md").replace("gate-box", "camera-box").replace("[model]", "[fashion]")
    (folder / "exits/scenario.yaml").write_text(text + own, encoding="utf-8")
    yield compared.replace("scenario.yaml", "exits/scenario.yaml")


def profiling(folder: Path, first: Path) -> Iterator[str]:
    shutil.copy(first / "models/mobilenetv2.onnx", folder / "resnet50.onnx")
    for name in ("cold", "warm"):
        shutil.copy(first / "profiles/this-machine/mobilenetv2.json", folder / f"{name}.json")
    yield from commands("guides/profiling.md")
    text = (first / "scenario.yaml").read_text(encoding="utf-8")
    hosts = yaml_of("guides/profiling.md").replace("device_class: box", "device_class: this-machine")
    text = re.sub(r"^workers:\n(?:  .*\n)+", hosts, text, flags=re.MULTILINE)
    for worker, named in (("camera-box", "left"), ("cabinet, office", "right")):
        text = text.replace(worker, named)
    for name in ("models", "profiles"):
        shutil.copytree(first / name, folder / name, dirs_exist_ok=True)
    (folder / "hosts.yaml").write_text(text, encoding="utf-8")
    workers = load_instance(folder / "hosts.yaml").scenario.workers
    assert {name: spec.host for name, spec in workers.items()} == {"left": "box-1", "right": "box-1"}


def batches(folder: Path, first: Path) -> Iterator[str]:  # noqa: ARG001
    shutil.copy(small_gpt2(), folder / "prompts.onnx")
    scenario = "schema: planner/scenario/v1\nprofiles: [profiles]\n" + yaml_of("guides/batches.md")
    (folder / "scenario.yaml").write_text(scenario, encoding="utf-8")
    yield from commands("guides/batches.md")
    assert json.loads((folder / "profiles/box/prompts.json").read_text(encoding="utf-8"))["batches"]["sizes"] == [
        1,
        2,
        4,
        8,
    ]


def policies(folder: Path, first: Path) -> Iterator[str]:
    for name in ("models", "profiles"):
        shutil.copytree(first / name, folder / name)
    (folder / "examples/two-cameras").mkdir(parents=True)
    text = (ROOT / "examples/two-cameras/scenario.yaml").read_text(encoding="utf-8")
    scenario = folder / "examples/two-cameras/scenario.yaml"
    scenario.write_text(text + yaml_of("policies.md"), encoding="utf-8")
    assert load_instance(scenario).scenario.policy.adaptive.ageing_s == 5.0
    yield f"planner solve {scenario} -o plan.json"
    yield from commands("policies.md")


def interchange(folder: Path, first: Path) -> Iterator[str]:  # noqa: ARG001
    page = (DOCS / "interchange.md").read_text(encoding="utf-8")
    for name, begin in (
        ("models.yml", "net: {layers"),
        ("device_types.yml", "board:\n"),
        ("devices.yml", "board: ["),
        ("instance.json", '{"name"'),
    ):
        (found,) = (part for part in page.split("\n\n") if part.startswith("    " + begin))
        (folder / name).write_text(dedent(found), encoding="utf-8")
    yield from commands("interchange.md")


def certificates(folder: Path, first: Path) -> Iterator[str]:  # noqa: ARG001
    for page in ("running.md", "guides/operations.md", "security.md"):
        yield from commands(page)


def solving(folder: Path, first: Path) -> Iterator[str]:
    shutil.copytree(first, folder, dirs_exist_ok=True)
    (folder / "scenario.yaml").rename(folder / "fleet.yaml")
    for name in ("examples", "profiles"):
        ignored = shutil.ignore_patterns("__pycache__", "this-machine")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored, dirs_exist_ok=True)
    yield from commands("solving.md")


def tokens(folder: Path, first: Path) -> Iterator[str]:  # noqa: ARG001
    scenario = (ROOT / "examples/tokens/scenario.yaml").read_text(encoding="utf-8")
    own = re.sub(r"^sources:\n(?:(?:  .*)?\n)+", yaml_of("guides/tokens.md"), scenario, flags=re.MULTILINE)
    # A machine may be slower than the page's, or busy, and slower than when it was profiled.
    own = re.sub(r"(max_ttft|max_tpot): \d+ ms", r"\1: 60 s", own).replace("path: ", "path: models/")
    own = re.sub(r"speed: ([\d.]+)", lambda found: f"speed: {float(found[1]) / 2}", own)
    (folder / "scenario.yaml").write_text(own, encoding="utf-8")
    yield from commands("guides/tokens.md")
    with_sequences = re.sub(r"^sources:\n(?:  .*\n)+", yaml_of("guides/tokens.md"), scenario, flags=re.MULTILINE)
    (folder / "scenario.yaml").write_text(with_sequences.replace("path: ", "path: models/"), encoding="utf-8")
    decode = load_instance(folder / "scenario.yaml").scenario.sources["assistant"].decode
    assert decode is not None
    assert decode.context == 192


GUIDES: Final[dict[str, Callable[[Path, Path], Iterator[str]]]] = {
    "start/own-model.md": own_model,
    "guides/choosing.md": choosing,
    "guides/deadlines.md": deadlines,
    "guides/exits.md": exits,
    "guides/profiling.md": profiling,
    "guides/batches.md": batches,
    "guides/tokens.md": tokens,
    "policies.md": policies,
    "interchange.md": interchange,
    "running.md, guides/operations.md, security.md": certificates,
    "solving.md": solving,
}


@pytest.mark.parametrize("pages", GUIDES)
def test_the_commands_of_a_page_work(pages: str, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in GUIDES[pages](tmp_path, first):
        if not excused(command):
            perform(command)


def test_the_files_that_the_first_page_promises_are_there(first: Path) -> None:
    for name in ("plan.json", "plan.svg", "runs/first/result.json", "scenario.schema.json"):
        assert (first / name).is_file(), name


def test_the_commands_of_every_page_are_run_somewhere() -> None:
    run = {page for pages in GUIDES for page in pages.split(", ")} | {"start/first-plan.md"}
    for path in sorted(DOCS.rglob("*.md")):
        page = path.relative_to(DOCS).as_posix()
        left = [command for command in commands(page) if not excused(command)]
        assert not left or page in run or page in ELSEWHERE, f"{page}: {left}"


def test_every_piece_of_yaml_is_used() -> None:
    """A scenario in the text of a page, or a part of one, is loaded by a test."""
    with_yaml = set()
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        for block in re.findall(
            r"(?:^    (?:models|workers|sources|policy|objective|networks):.*\n(?:^     .*\n)*)+",
            text,
            flags=re.MULTILINE,
        ):
            assert YAML(typ="safe").load(dedent(block))
            with_yaml.add(path.relative_to(DOCS).as_posix())
    used = {"start/own-model.md", "policies.md", "guide.md", "reference/scenario-example.md"}
    assert with_yaml == used | {
        f"guides/{guide}.md" for guide in ("batches", "deadlines", "exits", "profiling", "tokens")
    }
