"""The tokens of sequences in a run, compared with those that one session of the whole model generates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from planner.execution.agent.sequences import draws
from planner.execution.coordinator.deployment import Deployment
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import TOKENS
from planner.model.chain import Chain
from planner.model.tokens import choose, inputs_of, logits_of, roles
from planner.runtime.session import BlockSession
from planner.runtime.state import NUMBERS
from planner.scenario.decode import DecodeSpec
from planner.scenario.instance import Instance
from planner.trace.records import Record, SampleRecord
from planner.validation.numerics import NAMED, Numerics, TokenDifference

ExpectedTokens: TypeAlias = Mapping[tuple[str, str], Sequence[tuple[int, ...]]]
"""By source and model: the tokens that follow each prompt of the source."""


def expected_tokens(
    instance: Instance,
    whole: Mapping[str, bytes],
    chains: Mapping[str, Chain],
    deployment: Deployment,
    progress: Callable[[int, int], None] | None = None,
) -> ExpectedTokens:
    """Generate with the whole models, on the CPU of this process, without graph optimisation.

    Parameters
    ----------
    whole
        Serialised models.
    """
    found: dict[tuple[str, str], list[tuple[int, ...]]] = {}
    for position, (source, spec) in enumerate(instance.scenario.sources.items()):
        if spec.decode is None:
            continue
        prompts = deployment.prompts(source)
        for model in spec.models:
            session = BlockSession(whole[model], name=model, optimise=False)
            found[source, model] = []
            for entry, prompt in enumerate(prompts):
                seed = draws((deployment.seed, position), entry)
                decode = spec.decode.model_copy(update={"prompt": len(prompt)})
                found[source, model].append(_generate(session, chains[model], decode, prompt, seed))
                if progress is not None:
                    progress(entry + 1, len(prompts))
    return found


def _generate(
    session: BlockSession, chain: Chain, decode: DecodeSpec, prompt: Sequence[int], seed: Sequence[int]
) -> tuple[int, ...]:
    meanings = roles(chain.cuts[0].tensors, chain.name)
    logits = logits_of(chain.cuts[-1].tensors, chain.name).name
    known, number = list(prompt), next(NUMBERS)
    for runs, run in enumerate(decode.runs):
        end = run.past + run.new
        outputs = session.run(inputs_of(meanings, known[run.past : end], run.past, number, runs))
        if end == len(known):
            known.append(choose(outputs[logits], decode.drawn_temperature, seed, end - len(prompt)))
            if known[-1] in decode.stop:
                break
    return tuple(known[len(prompt) :])


def compare_tokens(
    outputs: Mapping[tuple[str, int], Tensors], records: Iterable[Record], expected: ExpectedTokens
) -> Numerics:
    """Compare the tokens of every sequence of a run, one by one.

    Parameters
    ----------
    outputs
        Outputs of each completed sample, by source and sample; sample k had prompt k modulo the number of prompts.
    """
    samples, unequal, not_received, tokens = 0, 0, 0, 0
    differences: list[TokenDifference] = []
    for record in records:
        origin = record.origin if isinstance(record, SampleRecord) else None
        known = expected.get((record.source, origin.model)) if origin is not None else None
        if known is None:
            continue
        result = outputs.get((record.source, record.sample))
        if result is None:
            not_received += 1
            continue
        found, wanted = tuple(result[TOKENS].tolist()), known[record.sample % len(known)]
        samples, tokens = samples + 1, tokens + len(found)
        unequal += found != wanted
        if found != wanted and len(differences) < NAMED:
            differences.append(TokenDifference(record.source, record.sample, found, wanted))
    return Numerics(samples, 0.0, 0.0, unequal, tuple(differences), {}, not_received, tokens)
