"""The user's samples: from folders, files and commands; and what is said of those that do not fit."""

from __future__ import annotations

import shlex
import sys
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from planner.errors import ExecuteError, PlannerError, PlannerWarning, RuntimeSessionError
from planner.execution.session.samples import Arrays, Sample, find_samples, fitting
from planner.model.chain import TensorSpec

IMAGE = TensorSpec("image", "float32", (1, 2, 3))
TOKEN = TensorSpec("token", "int64", (1,))
RNG = np.random.default_rng(0)


def images(count: int) -> np.ndarray:
    return RNG.standard_normal((count, 2, 3)).astype(np.float32)


def read_all(found: Iterable[Sample]) -> list[Arrays]:
    return [sample.read() for sample in found]


def same(found: Iterable[Sample], expected: list[Arrays]) -> None:
    for inputs, arrays in zip(read_all(found), expected, strict=True):
        assert inputs.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(inputs[name], array, strict=True)


def test_a_file_holds_samples_along_the_first_axis(tmp_path: Path) -> None:
    batch, tokens = images(3), np.array([4, 5, 6])
    expected: list[Arrays] = [{"image": batch[k : k + 1], "token": tokens[k : k + 1]} for k in range(3)]
    np.savez(tmp_path / "plain.npz", image=batch, token=tokens, label=np.zeros(7))
    same(find_samples(str(tmp_path / "plain.npz"), [IMAGE, TOKEN]), expected)
    np.savez(tmp_path / "batched.npz", image=batch[:, None], token=tokens[:, None])
    same(find_samples(str(tmp_path / "batched.npz"), [IMAGE, TOKEN]), expected)


def test_a_folder_holds_a_sample_a_file_in_the_order_of_names(tmp_path: Path) -> None:
    batch = images(3)
    np.save(tmp_path / "b.npy", batch[1])
    np.save(tmp_path / "a.npy", batch[0][None])
    np.savez(tmp_path / "c.npz", image=batch[2])
    for other in ("notes.txt", "d.jpg", "e.jpg"):
        (tmp_path / other).write_text("left alone")
    with pytest.warns(PlannerWarning, match=r"left out; found '2 of \.jpg, 1 of \.txt'"):
        found = list(find_samples(str(tmp_path), [IMAGE]))
    same(found, [{"image": batch[k : k + 1]} for k in range(3)])
    assert [sample.name for sample in found] == ["a", "b", "c"]


def command(code: str) -> str:
    return shlex.join([sys.executable, "-c", f"import sys, numpy as np\nout = sys.stdout.buffer\n{code}"])


def test_a_command_writes_as_many_arrays_a_sample_as_the_model_has_inputs() -> None:
    code = """
for k in range(3):
    np.save(out, np.full((2, 3), k, np.float32))
    np.save(out, np.array([k]))
"""
    found = list(find_samples(command(code), [IMAGE, TOKEN]))
    same(found, [{"image": np.full((1, 2, 3), k, np.float32), "token": np.array([k])} for k in range(3)])


def test_a_command_is_read_as_it_writes_and_ends_with_its_reader() -> None:
    endless = iter(find_samples(command("while True: np.save(out, np.zeros((2, 3), np.float32))"), [IMAGE]))
    assert [next(endless).name for _ in range(2)] == ["000000", "000001"]
    endless.close()  # type: ignore[attr-defined]  # a generator: it kills the command, or this would not return


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("np.save(out, np.zeros((2, 4), np.float32))", "sample 0, input image: wrong shape"),
        ("np.save(out, np.zeros((2, 3)))", "sample 0, input image: wrong dtype; found 'float64'; expected float32"),
        ("out.write(b'hello, world')", r"sample 0: not an array in \.npy format"),
        ("np.save(out, np.array([{}]), allow_pickle=True)", "not an array in"),
        (f"out.write(b'hello') # {'long ' * 100}", r" characters\), sample 0: not an array in \.npy format"),
        ("sys.exit(3)", "the command failed; found 'exit code 3'"),
    ],
)
def test_what_a_command_does_wrong_is_said(code: str, message: str) -> None:
    with pytest.raises(ExecuteError, match=message):
        read_all(find_samples(command(code), [IMAGE]))


def test_what_is_wrong_with_files_is_said(tmp_path: Path) -> None:
    with pytest.raises(ExecuteError, match="no samples found"):
        find_samples(str(tmp_path / "absent.npz"), [IMAGE])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ExecuteError, match="the folder has no samples"):
        find_samples(str(empty), [IMAGE])
    np.savez(tmp_path / "other.npz", picture=images(2))
    with pytest.raises(ExecuteError, match="input is missing; expected an array image"):
        find_samples(str(tmp_path / "other.npz"), [IMAGE])
    np.savez(tmp_path / "uneven.npz", image=images(2), token=np.arange(3))
    with pytest.raises(ExecuteError, match="arrays differ in the number of samples, or have none"):
        find_samples(str(tmp_path / "uneven.npz"), [IMAGE, TOKEN])
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 but no more")
    with pytest.raises(RuntimeSessionError, match=r"not an \.npz file"):
        find_samples(str(tmp_path / "broken.npz"), [IMAGE])
    np.save(empty / "one.npy", images(1))
    with pytest.raises(ExecuteError, match="a single array for a model with several inputs"):
        next(iter(find_samples(str(empty), [IMAGE, TOKEN]))).read()
    np.savez(empty / "one.npz", image=images(1)[0])
    with pytest.raises(ExecuteError, match="several files of one sample; found 'one'"):
        find_samples(str(empty), [IMAGE])


def test_every_input_that_does_not_fit_is_named() -> None:
    with pytest.raises(ExecuteError) as refused:
        fitting([IMAGE, TOKEN], {"image": np.zeros((4, 4), np.float32), "tok": np.array([1])}, "camera")
    assert [(fault.what, fault.where) for fault in refused.value.faults] == [
        ("not an input of the model", "camera"),
        ("wrong shape", "camera, input image"),
        ("input is missing", "camera, input token"),
    ]


def test_a_file_that_cannot_be_read_keeps_no_other_from_being_read(tmp_path: Path) -> None:
    for name in "abc":
        np.save(tmp_path / f"{name}.npy", images(1)[0])
    (tmp_path / "b.npy").write_bytes(b"cut short")
    first, broken, last = find_samples(str(tmp_path), [IMAGE])
    assert first.read().keys() == last.read().keys() == {"image"}
    with pytest.raises(ExecuteError, match=r"b\.npy: not an \.npy file"):
        broken.read()


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("a.npy", lambda path: np.save(path, images(1))),
        ("a.npz", lambda path: np.savez(path, image=images(1))),
        ("b.npz", lambda path: np.savez_compressed(path, image=images(1))),
    ],
)
def test_a_damaged_file_fails_with_its_name(tmp_path: Path, name: str, save: Callable[[Path], None]) -> None:
    path = tmp_path / name
    save(path)
    whole = path.read_bytes()
    (sample,) = find_samples(str(tmp_path), [IMAGE])
    refused = 0
    positions = range(0, len(whole), 3)
    for position in positions:
        for damaged in (whole[:position], whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]):
            path.write_bytes(damaged)
            try:
                sample.read()  # some bits do not matter
            except PlannerError as error:
                assert name in str(error)  # noqa: PT017 - as above
                refused += 1
    assert refused > len(positions)


def test_only_arrays_that_are_inputs_of_the_right_size_are_decompressed(tmp_path: Path) -> None:
    large = np.zeros((2**12, 2**10), np.float32)
    np.savez_compressed(tmp_path / "all.npz", image=images(2), other=large)
    folder = tmp_path / "folder"
    folder.mkdir()
    np.savez_compressed(folder / "a.npz", image=large)
    np.savez_compressed(folder / "b.npz", image=images(1), other=large)
    tracemalloc.start()
    try:
        assert len(read_all(find_samples(str(tmp_path / "all.npz"), [IMAGE]))) == 2
        for sample in find_samples(str(folder), [IMAGE]):
            with pytest.raises(ExecuteError, match=r"wrong shape|not an input of the model"):
                sample.read()
        assert tracemalloc.get_traced_memory()[1] < large.nbytes / 8
    finally:
        tracemalloc.stop()
