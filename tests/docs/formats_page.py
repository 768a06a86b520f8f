"""The page of file formats, made from the classes that read and write them: ``python -m tests.docs.formats_page``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from planner.files import write_text_atomic
from planner.plan.types import PlanSpec
from planner.profiling.types import Profile
from planner.scenario.instance import Instance
from planner.trace.records import BlockRecord, Origin, SampleRecord, TransferRecord
from planner.worker.events import Step
from tests.docs.fields import about, fields_of, inner_classes, table

PAGE: Final = Path(__file__).parents[2] / "docs/reference/formats.md"

NAME: Final = "NAME"
"""Stands for any name in the paths of a result."""

_NAMED: Final = frozenset(("sources", "workers", "networks", "slowness", "by_profile_s"))
"""Keys of a result whose values are mappings by name."""

RESULT: Final[Mapping[str, str]] = {
    "passed": "Whether all checks passed.",
    "checks[].name": "What was checked.",
    "checks[].passed": "Whether it holds.",
    "checks[].found": "What was found, in words.",
    "checks[].expected": "What was expected, in words.",
    "lost": "Samples that neither completed nor are reported failed.",
    "failed": "Samples that were given up, with a reason.",
    "duplicates": "Results that came twice and were dropped.",
    "faults[]": "Samples that failed or were lost, and outputs that differ, in words.",
    "incidents[].at_s": "Time of a failure or recovery, in seconds since the start.",
    "incidents[].worker": "The worker concerned; empty for the run as a whole.",
    "incidents[].what": "What happened, in words.",
    "incidents[].severity": "`info` for a recovery, `error` where the run goes on without a worker, else `warning`.",
    "host_limited": "Whether a host, rather than the plan, may have caused a difference.",
    "host_limits[]": "Workers whose host was too slow, or busy with something else.",
    "numerics.samples": "Samples whose outputs were compared.",
    "numerics.tokens": "Tokens of sequences among them, each of which was compared.",
    "numerics.not_received": "Samples that completed, and whose outputs were not received.",
    "numerics.max_abs_error": "Largest absolute difference of an output.",
    "numerics.max_rel_error": "Largest difference, divided by the largest value of that output.",
    "numerics.tolerances[].model": "A model of the run.",
    "numerics.tolerances[].provider": "An execution provider that computed it.",
    "numerics.tolerances[].precision": "The precision in which the provider computes.",
    "numerics.tolerances[].whole_error": "What the provider changes in the whole model's outputs; null if unknown.",
    "numerics.tolerances[].tolerance": "Largest relative error that is allowed.",
    "numerics.tolerances[].exact_provider": "The provider that computes in full precision, and its error.",
    "numerics.tolerances[].exact_time_ratio": "How many times as long that one takes.",
    "sources.NAME.predicted.mean_delay_s": "Mean delay by the simulation, in seconds.",
    "sources.NAME.predicted.p50_delay_s": "Median of the delay, in seconds.",
    "sources.NAME.predicted.p95_delay_s": "95th percentile of the delay, in seconds.",
    "sources.NAME.predicted.p99_delay_s": "99th percentile of the delay, in seconds.",
    "sources.NAME.predicted.dropped": "Samples that were dropped because they are late or waited too long.",
    "sources.NAME.predicted.miss_share": "Share of samples that miss the deadline; null without one.",
    "sources.NAME.predicted.throughput_per_s": "Completed samples per second.",
    "sources.NAME.predicted.ttft_s": "Mean time to the first token of sequences, in seconds; null for other samples.",
    "sources.NAME.predicted.tpot_s": "Mean time per token after the first, in seconds; null for other samples.",
    "sources.NAME.predicted.tokens_per_s": "Tokens of sequences per second; null for other samples.",
    "sources.NAME.predicted.accuracy": "Expected fraction of correct answers.",
    "sources.NAME.measured.mean_delay_s": "Mean delay in the run, by the source's own clock, in seconds.",
    "sources.NAME.measured.p50_delay_s": "As predicted, measured.",
    "sources.NAME.measured.p95_delay_s": "As predicted, measured.",
    "sources.NAME.measured.p99_delay_s": "As predicted, measured.",
    "sources.NAME.intervals.p50_delay_s[]": "Ends of its 95 % confidence interval as measured, in seconds.",
    "sources.NAME.intervals.p95_delay_s[]": "The same.",
    "sources.NAME.intervals.p99_delay_s[]": "The same.",
    "sources.NAME.intervals.ttft_s[]": "The same of the mean time to the first token, if there are sequences.",
    "sources.NAME.intervals.tpot_s[]": "The same of the mean time per token, if there are sequences.",
    "sources.NAME.intervals.miss_share[]": "The same of the share of late samples, if there are deadlines.",
    "sources.NAME.intervals.drop_share[]": "The same of the share of dropped samples, if some were without a deadline.",
    "sources.NAME.measured.dropped": "As predicted, measured.",
    "sources.NAME.measured.miss_share": "As predicted, measured.",
    "sources.NAME.measured.throughput_per_s": "As predicted, measured.",
    "sources.NAME.measured.ttft_s": "As predicted, measured.",
    "sources.NAME.measured.tpot_s": "As predicted, measured.",
    "sources.NAME.measured.tokens_per_s": "As predicted, measured.",
    "sources.NAME.measured.accuracy": "Fraction of correct answers; null without labels.",
    "sources.NAME.error_ratio": "Measured divided by predicted mean delay, minus 1.",
    "sources.NAME.prediction_interval_s[]": "Ends of the interval of the predicted mean delay; null if unknown.",
    "sources.NAME.inside": "Whether the measured mean delay is in it; null likewise.",
    "sources.NAME.accuracy_interval": "95 % confidence interval of the measured accuracy; null without labels.",
    "sources.NAME.explanation": "The leg that explains most of the difference, in words; may be empty.",
    "sources.NAME.legs[].place": "A stage or a transfer.",
    "sources.NAME.legs[].predicted.wait_s": "Mean waiting before it, in seconds.",
    "sources.NAME.legs[].predicted.work_s": "Mean computing or sending, in seconds.",
    "sources.NAME.legs[].measured.wait_s": "As predicted, measured.",
    "sources.NAME.legs[].measured.work_s": "As predicted, measured.",
    "workers.NAME.predicted": "Share of the time in which a worker computes.",
    "workers.NAME.measured": "As predicted, measured.",
    "networks.NAME.predicted": "Share of the time in which a network resource carries something.",
    "networks.NAME.measured": "As predicted, measured.",
    "energy": "Power of the workers, predicted and of the run; null if the scenario states none.",
    "calibration": "In-situ times of blocks relative to the profile; null without `--calibrate`.",
}
"""The keys of ``result.json``: a test holds them against those of a real run."""

_HEAD: Final = """# File formats

The files that programs read and write, with all keys. This page is generated from the classes that read them. Numbers
are in SI units, and the name of a key ends in its unit: `_s` seconds, `_bytes`, `_per_s`, `_bytes_per_s`, `_w` watts,
`_j` joules. Blocks are numbered from 0; `last_block` is inclusive. Cut 0 is the input of a model, cut l lies before
block l, the last cut is the output. `planner schema plan` and `planner schema profile` print JSON Schemas. The
[scenario file](../scenario.md) has its own page.

## What may change

The format of a scenario, catalogue, plan and profile has a version in its key `schema`, such as `planner/plan/v1`.
Within one version:

- a key keeps its name, its type, its unit and its meaning;
- a key may be added; it has a default, so that older files can still be read;
- a choice may be added, such as a method or a status.

Readers refuse keys that they do not know, so a file of a newer release may be refused by an older one, with a message
that names the key. Programs that read these files should ignore unknown keys. Everything else is a new version, and a
file of another version is refused by a message, never read wrongly.

`planner` is alpha. Until release 1.0, an exception from these rules is possible; the changelog names it. No promise
is made for the files that only a run of the same release reads: `instance.json`, `steps/`, and the messages between
agents.
"""

_TRACE: Final = """## Trace

A file with one JSON object per line, in no particular order. `kind` tells which of three records it is.
Times are in seconds since the start of the run: virtual time in a simulation, the clock of the worker
that wrote the record in a run. `planner validate -o` writes `predicted.jsonl` and `measured.jsonl`.
"""

_RESULT: Final = """## Result

`result.json` of a run folder, and the output of `planner validate --json`. `NAME` stands for each source, worker or
network, `[]` for the entries of a list.
"""

_FOLDER: Final = """## Run folder

Written by `planner validate -o FOLDER`.

| file | content |
| --- | --- |
| `result.json` | the verdict: [result](#result) |
| `plan.json` | the [plan](#plan) that ran; absent for policies that follow none |
| `predicted.jsonl`, `measured.jsonl` | the [traces](#trace) of the simulation and of the run |
| `instance.json` | scenario, profiles and paths together, in SI units |
| `steps/WORKER.json` | the log of a worker: a list of steps, which can be replayed |
| `run.json` | `schema`, `kind`, `command` (the command line that wrote the folder) and `version` |
| `timeline.png`, `close-up.png`, `delays.png`, `legs.png` | pictures |

"""

_RUN: Final = """
`planner simulate -o FOLDER` writes `result.json` as printed by `--json`, `plan.json`, `instance.json`, `run.json` and
pictures; of one run `trace.jsonl`, of several `trace-POLICY-SEED.jsonl`.

`planner run -o FOLDER` writes `SOURCE/SAMPLE.npz`, the outputs of a sample by name, and `SOURCE.jsonl`, a line for
each sample with `source`, `sample` (its number), `name` (of its file), and either `delay_s` and `file` or `error`,
the reason why it failed. `run.json` has for each source where its
`samples` come from, and its `models` with the hashes of their chains: another run is not resumed there.
"""


def formats_page() -> str:
    """Return the page as Markdown."""
    parts = [_HEAD]
    parts += [
        "## Plan\n",
        *_sections(PlanSpec, "Written by `planner solve -o`, read by `simulate`, `validate` and `run`."),
    ]
    parts += [
        "## Profile\n",
        *_sections(Profile, "Written by `planner profile`, found by the scenario in its `profiles:` folders."),
    ]
    parts += [_TRACE]
    for record in (BlockRecord, TransferRecord, SampleRecord, Origin):
        parts += [f"### {record.__name__}\n\n{about(record)}\n", table(record)]
    parts += [
        _RESULT,
        "| key | meaning |\n| --- | --- |\n" + "".join(f"| `{key}` | {text} |\n" for key, text in RESULT.items()),
    ]
    parts += [_FOLDER + f"Keys of `instance.json`: {_names(Instance)}. Keys of a step: {_names(Step)}.\n" + _RUN]
    return "\n".join(parts)


def result_paths(document: Any, path: str = "") -> Iterator[str]:
    """Yield the path of each value of a result, with names and numbers of entries replaced."""
    key = path.rpartition(".")[2]
    if isinstance(document, dict):
        for name, value in document.items():
            inner = NAME if key in _NAMED else name
            yield from result_paths(value, f"{path}.{inner}" if path else inner)
    elif isinstance(document, list):
        for value in document:
            yield from result_paths(value, f"{path}[]")
    else:
        yield path


def _sections(root: type, how: str) -> Iterator[str]:
    yield f"{about(root)} {how}\n"
    yield table(root)
    for inner in inner_classes(root):
        yield f"### {inner.__name__}\n\n{about(inner)}\n"
        yield table(inner)


def _names(cls: type) -> str:
    return ", ".join(f"`{field.name}`" for field in fields_of(cls))


def main() -> None:
    """Write the page."""
    write_text_atomic(PAGE, formats_page())


if __name__ == "__main__":
    main()
