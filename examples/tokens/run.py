"""Two prompts of unlike priority on three devices, and a picture of tokens and workers along time; see README.md.

python examples/tokens/run.py [-o FOLDER]
"""

from __future__ import annotations

import shutil
import threading
import time
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

import planner
from planner.cli.output import print_table
from planner.execution.coordinator.run_result import Observer, SendSample
from planner.execution.session.generation import Generation
from planner.execution.wire.messages import Load
from planner.model.decoders import build_decoder
from planner.profiling.store import save_profile
from planner.report.figure import GREY, new_figure, source_colours

HERE: Final = Path(__file__).parent
VOCABULARY: Final = 1000
AXES: Final = {"sequence_length": 1, "past_sequence_length": 64}


@dataclass(frozen=True)
class Variant:
    """How the digest's long prompt is run."""

    label: str
    chunk: int | None
    """Tokens of a piece; None for the whole prompt at once."""


class Loads(Observer):
    """Keeps what each worker reports twice a second: the time of the report, and that of computing so far."""

    def __init__(self) -> None:
        self.start_s = 0.0
        self.by_worker: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def on_started(self, submit: SendSample) -> None:  # noqa: ARG002
        """Keep the start, when nothing was computed."""
        self.start_s = time.monotonic()

    def on_load(self, load: Load) -> None:
        """Keep a report."""
        reports = self.by_worker[load.worker] = self.by_worker[load.worker] or [(self.start_s, 0.0)]
        reports.append((time.monotonic(), load.busy_s))


@dataclass
class Run:
    """What came of a variant: the sequences of each source, and the reports of each worker."""

    sequences: dict[str, list[Generation]]
    loads: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)


VARIANTS: Final = (Variant("prompts whole", None), Variant("prompts in chunks of 16", 16))


def prepare(folder: Path, budget_s: float) -> planner.Plan:
    """Build the model, measure it here, and plan the scenario."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "scenario.yaml", folder)
    build_decoder("llama-small", folder / "llama-small.onnx")
    model = planner.load_chain(folder / "llama-small.onnx", max_blocks=6, axes=AXES)
    profile = planner.profile(model, device_class="this-machine", budget_s=budget_s)
    save_profile(profile, folder / "profiles" / "this-machine" / "llama-small.json")
    plan = planner.solve(folder / "scenario.yaml", routes="single")
    plan.save(folder / "plan.json")
    return plan


def generate(session: planner.Session, variant: Variant, prompt: int, tokens: int) -> dict[str, list[Generation]]:
    """Let the assistant generate while the digest reads one long prompt after the other."""
    done = threading.Event()
    found: dict[str, list[Generation]] = {"assistant": [], "digest": []}

    def digest() -> None:
        while not done.is_set():
            generation = session.source("digest").generate(
                [number % VOCABULARY for number in range(prompt)], max_new=4, chunk=variant.chunk or prompt
            )
            found["digest"].append(generation)
            for _ in generation:
                if done.is_set():
                    return

    reader = threading.Thread(target=digest)
    reader.start()
    try:
        for start in (5, 40, 77):
            generation = session.source("assistant").generate([start, start + 1, start + 2], max_new=tokens)
            found["assistant"].append(generation)
            for _ in generation:
                pass
    finally:
        done.set()
        reader.join()
    return found


def rows(label: str, found: Mapping[str, list[Generation]]) -> list[tuple[str, ...]]:
    """Return a row of the table for each source."""
    table: list[tuple[str, ...]] = []
    for source, generations in found.items():
        finished = [one for one in generations if one.tpot_s is not None and one.ttft_s is not None]
        gaps_s = [
            later - earlier for one in finished for earlier, later in zip(one.times_s, one.times_s[1:], strict=False)
        ]
        first_s = sum(one.ttft_s or 0.0 for one in finished) / max(len(finished), 1)
        mean_s = sum(gaps_s) / max(len(gaps_s), 1)
        cells = (f"{first_s * 1e3:.0f} ms", f"{mean_s * 1e3:.1f} ms", f"{max(gaps_s, default=0.0) * 1e3:.0f} ms")
        table.append((label, source, str(sum(len(one.tokens) for one in generations)), *cells))
    return table


def draw(path: Path, runs: Mapping[str, Run]) -> None:
    """Draw, for each variant, when each token was there, and how much each worker computed."""
    colours = source_colours(["assistant", "digest"])
    with new_figure(path, (1100, 420 * len(runs))) as figure:
        panels = figure.subplots(
            2 * len(runs), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": [2, 3] * len(runs)}
        )[:, 0]
        for (label, run), tokens, workers in zip(runs.items(), panels[::2], panels[1::2], strict=True):
            begin_s = min(one.begin_s for generations in run.sequences.values() for one in generations)
            for height, (source, generations) in enumerate(reversed(run.sequences.items())):
                times_s = [one.begin_s - begin_s + at_s for one in generations for at_s in one.times_s]
                tokens.plot(times_s, [height] * len(times_s), "|", markersize=16, color=colours[source])
            tokens.set_title(f"{label}: each line is a token")
            tokens.set_yticks(range(len(run.sequences)), list(reversed(run.sequences)))
            tokens.set_ylim(-0.6, len(run.sequences) - 0.4)
            for height, (worker, reports) in enumerate(sorted(run.loads.items(), reverse=True)):
                for (from_s, before_s), (to_s, after_s) in pairwise(reports):
                    share = min((after_s - before_s) / (to_s - from_s), 1.0)
                    workers.bar(from_s - begin_s, 0.8 * share, to_s - from_s, height, align="edge", color=GREY)
                workers.axhline(height, color=GREY, linewidth=0.5)
                workers.annotate(
                    worker, (-0.01, height + 0.4), xycoords=workers.get_yaxis_transform(), ha="right", va="center"
                )
            workers.set_title("share of the time that each worker computes")
            workers.set_yticks([])
            workers.set_ylim(0, max(len(run.loads), 1))
        panels[-1].set_xlabel("Time [s]")
        panels[-1].set_xlim(left=0)


def main() -> None:
    """Plan, generate with whole prompts and with prompts in chunks; print and draw the times of all tokens."""
    parser = ArgumentParser(description=main.__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("tokens-results"), help="folder for the results")
    parser.add_argument("--prompt", type=int, default=256, help="tokens of each prompt of the digest")
    parser.add_argument("--tokens", type=int, default=120, help="tokens of each answer of the assistant")
    parser.add_argument("--budget", type=float, default=20.0, help="time to measure the model, in seconds")
    options = parser.parse_args()
    plan = prepare(options.output, options.budget)
    runs = {}
    table = []
    for variant in VARIANTS:
        loads = Loads()
        with planner.Session(plan, observer=loads) as session:
            runs[variant.label] = Run(generate(session, variant, options.prompt, options.tokens), loads.by_worker)
        table += rows(variant.label, runs[variant.label].sequences)
    print_table("Tokens", ("", "source", ">tokens", ">to the first", ">to the next", ">longest gap"), table)
    draw(options.output / "tokens.png", runs)


if __name__ == "__main__":
    main()
