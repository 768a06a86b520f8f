"""The token that a run of a sequence gives, and the input of the next run: at whichever worker that begins."""

from __future__ import annotations

from collections.abc import Mapping

from planner.execution.agent.model_blocks import Held, fetch
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import DeployedModel
from planner.model.chain import TensorSpec
from planner.model.tokens import Role, choose, inputs_of, logits_of, roles
from planner.policy.types import Decoding


class NextTokens:
    """Chooses tokens and feeds them back, for the models of a run.

    Parameters
    ----------
    models
        By name.
    """

    def __init__(self, models: Mapping[str, DeployedModel]) -> None:
        self._models = models
        self._logits: dict[str, str] = {}
        self._roles: dict[str, dict[TensorSpec, Role]] = {}

    def token(self, model: str, outputs: Held, decoding: Decoding) -> int:
        """Return the token that follows a run with these outputs.

        Raises
        ------
        ModelError
            As :func:`~planner.model.tokens.choose` and :func:`~planner.model.tokens.logits_of` do.
        """
        if model not in self._logits:
            self._logits[model] = logits_of(self._models[model].cuts[-1], model).name
        name = self._logits[model]
        return choose(fetch({name: outputs[name]})[name], decoding.temperature, decoding.seed, decoding.number)

    def inputs(self, model: str, token: int, sequence: int, decoding: Decoding) -> Tensors:
        """Return the inputs of a step, which takes a token.

        Parameters
        ----------
        decoding
            That of the step.
        """
        if model not in self._roles:
            self._roles[model] = roles(self._models[model].cuts[0], model)
        return inputs_of(self._roles[model], [token], decoding.context - 1, sequence, decoding.runs)
