"""A user's own samples from a folder, an ``.npz`` file, or the output of a command.

- A folder has one file per sample, ordered by name. An ``.npy`` file holds the input of a model with a single input; an
  ``.npz`` file holds the inputs by name. Other files are left out, with a warning.
- An ``.npz`` file has one array per input, by name, whose first axis counts the samples. Other arrays are ignored.
- A command writes arrays in numpy's ``.npy`` format to its standard output, one after the other
  (``numpy.save(sys.stdout.buffer, array)``); each sample consists of one array per input, in the model's order.

The leading axis of length 1 that most models have for the batch may be missing in all of them.

Each sample is read just before it is submitted, so that an unreadable one does not affect the others. Dtype and shape
are checked before the data is read or decompressed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from planner.errors import ExecuteError, Fault, PlannerError, PlannerWarning, shortened
from planner.model.chain import TensorSpec
from planner.runtime.arrays import native, open_arrays, read_array, read_stand_in
from planner.runtime.inputs import largest_bytes, load_arrays
from planner.runtime.session import tensor_fault

Arrays: TypeAlias = dict[str, NDArray[Any]]

TRIES: Final = 8
"""If so many first samples of a source cannot be read, all others are likely to be wrong as well."""

_MOST_OF_COMMAND: Final = 160
"""Length to which a command is shortened in a message, which goes on to name the sample and the input."""

EXPECTED = "a folder of .npy or .npz files, an .npz file, or a command"


class Sample(NamedTuple):
    """A sample: its name, which is that of its file or its number, and a function that reads its inputs.

    ``read`` raises :class:`ExecuteError` or :class:`RuntimeSessionError` if the inputs cannot be read or do not fit.
    """

    name: str
    read: Callable[[], Arrays]


def find_samples(origin: str, specs: Sequence[TensorSpec]) -> Iterable[Sample]:
    """Return the samples of a folder, a file or a command; a sequence if their number is known.

    Parameters
    ----------
    origin
        Folder, file or command; a command is run without a shell.
    specs
        Inputs of the model: the tensors of its cut 0.

    Raises
    ------
    ExecuteError
        If ``origin`` is none of these, or its arrays are not the inputs of the model; during the iteration, if a
        command fails.
    RuntimeSessionError
        If an ``.npz`` file cannot be read.
    """
    path = Path(origin)
    # Not by the path's own methods, which raise for a command that is too long for the name of a file.
    if os.path.isdir(origin):  # noqa: PTH112
        return _from_folder(path, specs)
    if os.path.isfile(origin) and path.suffix == ".npz":  # noqa: PTH113
        return _from_file(path, specs)
    try:
        words = shlex.split(origin)
    except ValueError:  # a quotation mark without its counterpart
        words = []
    if not words or shutil.which(words[0]) is None:
        raise ExecuteError("no samples found", where="source", value=origin, expected=EXPECTED)
    return _from_command(words, specs)


def first_inputs(samples: Sequence[Sample]) -> Arrays:
    """Return the inputs of the first sample that can be read.

    Raises
    ------
    PlannerError
        That of the first sample, if none of the first :data:`TRIES` can be read.
    """
    errors: list[PlannerError] = []
    for sample in samples[:TRIES]:
        try:
            return sample.read()
        except PlannerError as error:
            errors.append(error)
    raise errors[0]


def fitting(specs: Sequence[TensorSpec], inputs: Mapping[str, NDArray[Any]], where: str) -> Arrays:
    """Return a sample's inputs in this machine's byte order, with the shapes that the model expects.

    Raises
    ------
    ExecuteError
        If they are not arrays by name, or inputs are missing or unknown, or have another dtype or shape; with one fault
        per input.
    """
    if not isinstance(inputs, Mapping):
        example = ", ".join(f'"{spec.name}": ...' for spec in specs)
        found = f"an array of {inputs.dtype}" if isinstance(inputs, np.ndarray) else type(inputs).__name__
        raise ExecuteError("not the inputs by name", where=where, value=found, expected=f"a dictionary: {{{example}}}")
    arrays = {name: native(array) for name, array in inputs.items()}
    _refuse_misfits(specs, arrays, where)
    return _in_batches(specs, arrays)


def _refuse_misfits(specs: Sequence[TensorSpec], inputs: Mapping[str, NDArray[Any]], where: str) -> None:
    arrays = _in_batches(specs, inputs)
    unknown = [name for name in inputs if name not in arrays]
    names = ", ".join(spec.name for spec in specs)
    faults = [Fault("not an input of the model", where, name, f"one of {names}") for name in unknown]
    misfits = [tensor_fault(spec, arrays.get(spec.name)) for spec in specs]
    faults += [replace(fault, where=f"{where}, {fault.where}") for fault in misfits if fault is not None]
    if faults:
        raise ExecuteError(faults)


def _in_batches(specs: Sequence[TensorSpec], inputs: Mapping[str, NDArray[Any]]) -> Arrays:
    return {spec.name: _with_batch(spec, inputs[spec.name]) for spec in specs if spec.name in inputs}


def _with_batch(spec: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
    lacks_batch = spec.shape[:1] == (1,) and 0 not in spec.varies and spec.fits((1, *array.shape))
    return array[None] if lacks_batch else array


def _from_folder(folder: Path, specs: Sequence[TensorSpec]) -> Sequence[Sample]:
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = [path for path in entries if path.suffix in {".npy", ".npz"}]
    others = Counter(path.suffix or "no suffix" for path in entries if path.suffix not in {".npy", ".npz"})
    if files and others:
        found = ", ".join(f"{count} of {suffix}" for suffix, count in others.most_common())
        left_out = Fault("files that are no samples are left out", str(folder), found, "files *.npy or *.npz")
        warnings.warn(str(left_out), PlannerWarning, stacklevel=3)
    if not files:
        raise ExecuteError("the folder has no samples", where=str(folder), expected="files *.npy or *.npz")
    if duplicates := [name for name, count in Counter(path.stem for path in files).items() if count > 1]:
        raise ExecuteError(
            "several files of one sample", where=str(folder), value=", ".join(duplicates), expected="one file each"
        )
    return [Sample(path.stem, partial(_read, path, specs)) for path in files]


def _read(path: Path, specs: Sequence[TensorSpec]) -> Arrays:
    if path.suffix == ".npz":
        with open_arrays(path) as arrays:
            _refuse_misfits(specs, {name: arrays.stand_in(name) for name in arrays.names}, str(path))
            return _in_batches(specs, {spec.name: arrays.read(spec.name) for spec in specs})
    if len(specs) != 1:
        names = ", ".join(spec.name for spec in specs)
        raise ExecuteError(
            "a single array for a model with several inputs", where=str(path), expected=f"an .npz file with {names}"
        )
    try:
        with path.open("rb") as file:
            _refuse_misfits(specs, {specs[0].name: read_stand_in(file)}, str(path))
            file.seek(0)
            return _in_batches(specs, {specs[0].name: read_array(file)})
    except (OSError, ValueError) as error:
        raise ExecuteError("not an .npy file", where=str(path), value=str(error)) from error


def _from_file(path: Path, specs: Sequence[TensorSpec]) -> Sequence[Sample]:
    arrays = load_arrays(path, {spec.name for spec in specs})
    if missing := [spec.name for spec in specs if spec.name not in arrays]:
        raise ExecuteError(Fault("input is missing", str(path), expected=f"an array {name}") for name in missing)
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or not min(lengths.values()):
        raise ExecuteError(
            "arrays differ in the number of samples, or have none",
            where=str(path),
            value=lengths,
            expected="the same length of 1 or more of the first axis",
        )

    def read(index: int) -> Arrays:
        return fitting(specs, {name: array[index] for name, array in arrays.items()}, f"{path}, sample {index}")

    return [Sample(_numbered(index), partial(read, index)) for index in range(min(lengths.values()))]


def _numbered(index: int) -> str:
    return f"{index:06d}"


def _from_command(words: Sequence[str], specs: Sequence[TensorSpec]) -> Iterator[Sample]:
    command = shortened(shlex.join(words), _MOST_OF_COMMAND)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        pipe: Any = process.stdout
        # Given the file itself, numpy would ask for its position, which a pipe does not have.
        stream: Any = SimpleNamespace(read=pipe.read)
        try:
            index = 0
            while pipe.peek(1):
                where = f"{command}, sample {index}"
                arrays: Arrays = {}
                for spec in specs:
                    try:
                        arrays[spec.name] = read_array(stream, largest_bytes(spec))
                    except ValueError as error:
                        raise ExecuteError(
                            "not an array in .npy format", where=where, value=str(error), expected=f"input {spec.name}"
                        ) from error
                yield Sample(_numbered(index), partial(fitting, specs, arrays, where))
                index += 1
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise ExecuteError("the command failed", where=command, value=f"exit code {process.returncode}")
