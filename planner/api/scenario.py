"""Scenarios: read from a file, or built in Python."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import Fault, PlanError, ScenarioError
from planner.files import StrPath, write_bytes_atomic
from planner.project import load_models, unknown_accuracies, unused_exits
from planner.scenario.catalogue import Catalogue, expanded
from planner.scenario.document import Document, document_of, plain, read_document
from planner.scenario.instance import Instance
from planner.scenario.load import build_instance, read_scenario
from planner.scenario.types import ScenarioSpec
from planner.tables import Printable, Table

if TYPE_CHECKING:
    from planner.model.load import ChainModel


class Scenario(Printable):
    """Models, workers, networks and sources, with the profiles that they need.

    Made by :func:`planner.load_scenario` and :meth:`from_dict`.
    """

    def __init__(self, document: Document, folder: Path) -> None:
        self._data: dict[str, Any] = plain(document.data)
        self._folder = folder
        self._sha256 = document.sha256
        self.path = document.path
        """File of the scenario; None before it was saved."""
        self.instance: Instance = build_instance(document, folder)
        """The checked scenario with its profiles, paths and arrival times, in SI units."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, folder: StrPath = ".") -> Scenario:
        """Build a scenario in Python.

        Parameters
        ----------
        data
            The keys of a scenario file, with quantities as text: ``{"bandwidth": "54 Mbit/s", ...}``.
        folder
            Folder to which the paths in it are relative.

        Raises
        ------
        ScenarioError, ProfileError
            With all errors, each with its key; or with the profiles that are missing.
        """
        return cls(document_of(data), Path(folder))

    @classmethod
    def load(cls, path: StrPath) -> Scenario:
        """Read a scenario file; as :func:`planner.load_scenario`."""
        return cls(read_document(Path(path)), Path(path).parent)

    @property
    def spec(self) -> ScenarioSpec:
        """The contents of the scenario file, in SI units."""
        return self.instance.scenario

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources."""
        return self.instance.sources

    @property
    def workers(self) -> tuple[str, ...]:
        """Names of the workers."""
        return self.instance.workers

    @property
    def folder(self) -> Path:
        """Folder to which its paths are relative."""
        return self._folder

    @property
    def warnings(self) -> tuple[str, ...]:
        """Limits and exits that have no effect, and why."""
        return (*unknown_accuracies(self.instance), *unused_exits(self.instance))

    def to_dict(self) -> dict[str, Any]:
        """Return the scenario with the keys and quantities of its file."""
        copied: dict[str, Any] = plain(self._data)
        return copied

    def with_devices(self, catalogue: Catalogue, counts: Mapping[str, int]) -> Scenario:
        """Return the scenario with some devices of a catalogue as further workers; it has no file yet."""
        return Scenario(document_of(expanded(self._data, catalogue, counts)), self._folder)

    def save(self, path: StrPath) -> Path:
        """Write the scenario to a YAML file, which becomes its file, and return the path.

        Relative paths are rewritten, so that they lead to the same files from the new folder.
        """
        from ruamel.yaml import YAML

        target = Path(path)
        data = _moved(self._data, self._folder, target.parent)
        text = io.StringIO()
        yaml = YAML()
        yaml.default_flow_style = None
        yaml.dump(data, text)
        content = text.getvalue().encode()
        write_bytes_atomic(target, content)
        self._data, self._folder, self.path = data, target.parent, target
        self._sha256 = hashlib.sha256(content).hexdigest()
        return target

    def load_models(self) -> Mapping[str, ChainModel]:
        """Load the ONNX files, cut as the profiles say.

        Raises
        ------
        PlanError
            If a model has only a profile, or was cut differently from its profile.
        ModelError
            If a file is invalid.
        """
        return load_models(self.path or self._folder / "scenario", self.instance)

    def annotated_pins(self, source: str) -> dict[int, str]:
        """Return the workers that the annotations of a source's model name for its blocks, as pins of the source.

        Raises
        ------
        ScenarioError
            If there is no such source, it has several models, or the annotations name no worker of the scenario.
        PlanError, ModelError
            As for :meth:`load_models`.
        """
        if source not in self.sources:
            expected = f"one of {', '.join(self.sources)}"
            raise ScenarioError("no such source", where="pins", value=source, expected=expected)
        names = self.spec.sources[source].models
        if len(names) > 1:
            what, expected = "a source with several models cannot be pinned by annotations", "a source with one model"
            raise ScenarioError(what, where=source, value=list(names), expected=expected)
        model = self.load_models()[names[0]]
        pins = {block: device for block, device in enumerate(model.block_devices) if device is not None}
        wrong = dict.fromkeys(device for device in pins.values() if device not in self.workers)
        if wrong or not pins:
            what = "the annotations name a device that is no worker" if wrong else "no annotation names a device"
            expected = f"one of {', '.join(self.workers)}"
            raise ScenarioError(what, where=str(model.path), value=next(iter(wrong), None), expected=expected)
        return pins

    def file(self) -> tuple[Path, str]:
        """Return the file of the scenario and the SHA-256 of its content.

        Raises
        ------
        PlanError
            If it was never saved.
        """
        if self.path is None:
            raise PlanError("the scenario has no file", where="scenario", expected="scenario.save(PATH) first")
        return self.path, self._sha256

    def contents(self) -> Iterator[Table | str]:
        """Return tables of the sources, workers and networks."""
        from planner.units import format_quantity

        spec = self.spec
        yield Table(
            "Sources",
            ("source", "worker", "models", ">priority", ">rate", ">max. mean delay", ">deadline", ">min. accuracy"),
            [
                (
                    name,
                    source.worker,
                    ", ".join(source.models),
                    f"{source.priority:g}",
                    f"{source.rate_per_s:g} /s" if source.rate_per_s else source.arrivals,
                    "–" if source.max_mean_delay_s is None else format_quantity(source.max_mean_delay_s, "time"),
                    "–" if source.deadline_s is None else format_quantity(source.deadline_s, "time"),
                    "–" if source.min_accuracy is None else f"{source.min_accuracy:.1%}",
                )
                for name, source in spec.sources.items()
            ],
        )
        yield Table(
            "Workers",
            ("worker", "device class", ">speed", ">memory"),
            [
                (name, worker.device_class, f"{worker.speed:g}", f"{worker.memory_bytes / 2**20:.0f} MiB")
                for name, worker in spec.workers.items()
            ],
        )
        if spec.networks:
            yield Table(
                "Networks",
                ("network", "kind", "members", ">bandwidth", ">latency"),
                [
                    (
                        name,
                        network.kind,
                        ", ".join([*network.members, *("–".join(link) for link in network.links)]),
                        f"{network.bandwidth_bytes_per_s * 8 / 1e6:g} Mbit/s",
                        format_quantity(network.latency_s, "time"),
                    )
                    for name, network in spec.networks.items()
                ],
            )
        yield f"goal: {spec.objective.goal}"

    def __repr__(self) -> str:
        where = self.path if self.path is not None else "not saved"
        counts = (f"{len(self.sources)} sources", f"{len(self.workers)} workers", f"{len(self.spec.models)} models")
        return f"<Scenario ({where}): {', '.join(counts)}>"


def load_scenario(path: StrPath) -> Scenario:
    """Read a scenario file and all that it refers to.

    Raises
    ------
    ScenarioError, ProfileError
        With all errors of the file, each with its line; or with the profiles that are missing, and the commands that
        make them.
    """
    return Scenario.load(path)


def scenario_of(scenario: Scenario | StrPath) -> Scenario:
    """Return a scenario that is given as such or as a file."""
    return scenario if isinstance(scenario, Scenario) else load_scenario(scenario)


def _moved(data: Mapping[str, Any], old: Path, new: Path) -> dict[str, Any]:
    """Return a scenario whose relative paths lead to the same files from another folder."""

    def moved(path: str) -> str:
        return path if Path(path).is_absolute() else Path(os.path.relpath(old / path, new)).as_posix()

    return _with_paths(data, moved)


def refuse_paths_outside(data: Mapping[str, Any], known: Scenario) -> None:
    """Refuse a scenario that refers to files outside the folder of a known one, except those which that refers to.

    Raises
    ------
    ScenarioError
        Names the paths, relative to that folder; or if it is no scenario. No file is read.
    """
    document = document_of(data)
    read_scenario(document)  # what follows takes its shape for granted
    folder = known.folder.resolve()
    allowed = set(_paths(known.to_dict()))
    faults = [
        Fault("a file outside the folder of the scenario that runs", "scenario", path, "a path inside that folder")
        for path in dict.fromkeys(_paths(document.data))
        if path not in allowed and not (folder / path).resolve().is_relative_to(folder)
    ]
    if faults:
        raise ScenarioError(faults)


def _paths(data: Mapping[str, Any]) -> list[str]:
    """Return the paths to files and folders in a scenario."""
    found: list[str] = []

    def note(path: str) -> str:
        found.append(path)
        return path

    _with_paths(data, note)
    return found


def _with_paths(data: Mapping[str, Any], moved: Callable[[str], str]) -> dict[str, Any]:
    """Return a scenario with each path to a file or folder replaced."""

    def entries(section: str, *keys: str) -> dict[str, Any]:
        return {
            name: {key: moved(value) if key in keys and value is not None else value for key, value in entry.items()}
            for name, entry in copied[section].items()
        }

    copied: dict[str, Any] = plain(data)
    copied["profiles"] = [
        moved(folder) for folder in copied.get("profiles", ScenarioSpec.model_fields["profiles"].default)
    ]
    copied["models"] = entries("models", "path", "predictions")
    copied["sources"] = entries("sources", "trace")
    return copied
