"""The usual clients of the Open Inference Protocol against a service on real agents."""

from __future__ import annotations

import asyncio
import json
import types
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

import planner
from planner.runtime.session import BlockSession
from planner.serve.protocol.messages import SERVICE, message_classes
from tests.execution.case import ROWS, WIDTH, write_case
from tests.serve.case import DTYPES, SHAPE, tensor, values, write_every

HTTP, GRPC = tritonclient.http, tritonclient.grpc
BOTH = pytest.mark.parametrize("library", [HTTP, GRPC], ids=["http", "grpc"])


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="module")
def service(plan: Path) -> Iterator[planner.Service]:
    with planner.Service(plan, listen="127.0.0.1:0", grpc_listen="127.0.0.1:0", name="two sources") as opened:
        yield opened


@pytest.fixture
def client(service: planner.Service) -> Iterator[Callable[[types.ModuleType], Any]]:
    opened = []

    def connect(library: types.ModuleType) -> Any:
        made = library.InferenceServerClient(service.address if library is HTTP else service.grpc_address)
        opened.append(made)
        return made

    yield connect
    for made in opened:
        made.close()


def arrays(seed: int, pick: int = 0) -> dict[str, NDArray[Any]]:
    x = np.random.default_rng(seed).standard_normal((1, WIDTH)).astype(np.float32)
    return {"x": x, "pick": np.array([pick])}


def inputs(library: types.ModuleType, seed: int, pick: int = 0, **options: Any) -> list[Any]:
    return [tensor(library, name, array, **options) for name, array in arrays(seed, pick).items()]


def expected(plan: Path, seed: int, pick: int = 0) -> NDArray[Any]:
    return BlockSession(plan.parent / "small.onnx").run(arrays(seed, pick))["y"]


@BOTH
def test_a_server_describes_itself_and_its_models(client: Callable[[types.ModuleType], Any], library: Any) -> None:
    made = client(library)
    as_json = {"as_json": True} if library is GRPC else {}
    assert made.is_server_live()
    assert made.is_server_ready()
    assert made.is_model_ready("urgent")
    assert made.is_model_ready("other", "1")
    assert "binary_tensor_data" in made.get_server_metadata(**as_json)["extensions"]
    metadata = made.get_model_metadata("urgent", **as_json)
    shown = {entry["name"]: (entry["datatype"], [int(n) for n in entry["shape"]]) for entry in metadata["inputs"]}
    assert shown == {"x": ("FP32", [1, WIDTH]), "pick": ("INT64", [1])}
    assert [entry["name"] for entry in metadata["outputs"]] == ["y"]
    assert metadata["versions"] == ["1"]


def test_the_index_lists_the_sources(client: Callable[[types.ModuleType], Any]) -> None:
    index = client(HTTP).get_model_repository_index()
    assert [(entry["name"], entry["state"]) for entry in index] == [("urgent", "READY"), ("other", "READY")]


@BOTH
@pytest.mark.parametrize("source", ["urgent", "other"])
def test_results_are_those_of_one_session(
    client: Callable[[types.ModuleType], Any], library: Any, plan: Path, source: str
) -> None:
    made = client(library)
    for seed in range(3):
        result = made.infer(source, inputs(library, seed, pick=seed), request_id=f"r{seed}", model_version="1")
        np.testing.assert_allclose(result.as_numpy("y"), expected(plan, seed, pick=seed), rtol=1e-4, atol=1e-6)
        response = result.get_response()
        assert (response["id"] if library is HTTP else response.id) == f"r{seed}"


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("wanted", [True, False])
def test_tensors_travel_as_json_or_as_bytes_in_both_directions(
    client: Callable[[types.ModuleType], Any], plan: Path, *, binary: bool, wanted: bool
) -> None:
    sent = inputs(HTTP, 5, pick=2, binary_data=binary)
    outputs = [HTTP.InferRequestedOutput("y", binary_data=wanted)]
    result = client(HTTP).infer("urgent", sent, outputs=outputs)
    np.testing.assert_allclose(result.as_numpy("y"), expected(plan, 5, pick=2), rtol=1e-4, atol=1e-6)
    assert ("data" in result.get_response()["outputs"][0]) is not wanted


def test_one_request_may_mix_both(client: Callable[[types.ModuleType], Any], plan: Path) -> None:
    own = arrays(6, pick=1)
    mixed = [tensor(HTTP, "x", own["x"], binary_data=True), tensor(HTTP, "pick", own["pick"], binary_data=False)]
    result = client(HTTP).infer("urgent", mixed)
    np.testing.assert_allclose(result.as_numpy("y"), expected(plan, 6, pick=1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_bodies_may_be_compressed(
    client: Callable[[types.ModuleType], Any], plan: Path, algorithm: str, *, binary: bool
) -> None:
    result = client(HTTP).infer(
        "urgent",
        inputs(HTTP, 7, binary_data=binary),
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    np.testing.assert_allclose(result.as_numpy("y"), expected(plan, 7), rtol=1e-4, atol=1e-6)


def test_grpc_messages_may_be_compressed(client: Callable[[types.ModuleType], Any], plan: Path) -> None:
    result = client(GRPC).infer("urgent", inputs(GRPC, 8), compression_algorithm="gzip")
    np.testing.assert_allclose(result.as_numpy("y"), expected(plan, 8), rtol=1e-4, atol=1e-6)


def test_many_requests_at_once_each_get_their_own_result(service: planner.Service, plan: Path) -> None:
    whole = {seed: expected(plan, seed, pick=seed % ROWS) for seed in range(24)}
    with HTTP.InferenceServerClient(service.address, concurrency=8) as made:
        asked = {
            seed: made.async_infer(("urgent", "other")[seed % 2], inputs(HTTP, seed, pick=seed % ROWS))
            for seed in whole
        }
        for seed, later in asked.items():
            np.testing.assert_allclose(later.get_result().as_numpy("y"), whole[seed], rtol=1e-4, atol=1e-6)


@BOTH
def test_coroutines_share_a_connection(service: planner.Service, plan: Path, library: Any) -> None:
    aio = tritonclient.http.aio if library is HTTP else tritonclient.grpc.aio
    address = service.address if library is HTTP else service.grpc_address

    async def ask() -> list[NDArray[Any]]:
        async with aio.InferenceServerClient(address) as made:
            results = await asyncio.gather(*(made.infer("other", inputs(library, seed)) for seed in range(8)))
            return [result.as_numpy("y") for result in results]

    for seed, y in enumerate(asyncio.run(ask())):
        np.testing.assert_allclose(y, expected(plan, seed), rtol=1e-4, atol=1e-6)


# ---- what is refused ------------------------------------------------------------------------------------------------


def refused(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        call()
    return str(caught.value.status()), str(caught.value.message())


def status(library: types.ModuleType, http: int, grpc: str) -> str:
    return str(http) if library is HTTP else f"StatusCode.{grpc}"


@BOTH
def test_an_unknown_model_or_version_is_not_found(client: Callable[[types.ModuleType], Any], library: Any) -> None:
    made, not_found = client(library), status(library, 404, "NOT_FOUND")
    assert refused(lambda: made.infer("gate", inputs(library, 0)))[0] == not_found
    code, message = refused(lambda: made.infer("urgent", inputs(library, 0), model_version="2"))
    assert (code, "'2'" in message) == (not_found, True)
    assert refused(lambda: made.get_model_metadata("gate"))[0] == not_found


@BOTH
def test_inputs_that_do_not_fit_are_refused_with_what_was_expected(
    client: Callable[[types.ModuleType], Any], library: Any
) -> None:
    made, invalid = client(library), status(library, 400, "INVALID_ARGUMENT")
    x, pick = inputs(library, 0)
    wide = tensor(library, "x", np.zeros((1, WIDTH + 1), np.float32))
    double = tensor(library, "x", np.zeros((1, WIDTH)))
    text = tensor(library, "x", np.array([[b"a"] * WIDTH], np.object_))
    other = tensor(library, "z", np.zeros((1, WIDTH), np.float32))
    for sent, what in (
        ([wide, pick], "wrong shape"),
        ([double, pick], "wrong dtype"),
        ([text, pick], "unsupported datatype"),
        ([x], "input is missing"),
        ([x, pick, other], "not an input of the model"),
        ([x, x, pick], "twice"),
    ):
        code, message = refused(lambda sent=sent: made.infer("urgent", sent))  # type: ignore[misc]
        assert (code, what in message) == (invalid, True), message
    unknown = [library.InferRequestedOutput("z")]
    assert refused(lambda: made.infer("urgent", [x, pick], outputs=unknown))[0] == invalid


@BOTH
def test_shared_memory_is_refused(client: Callable[[types.ModuleType], Any], library: Any) -> None:
    made, unsupported = client(library), status(library, 501, "UNIMPLEMENTED")
    code, message = refused(lambda: made.register_system_shared_memory("region", "/region", 64))
    assert (code, "shared memory is not offered" in message) == (unsupported, True)
    x, pick = inputs(library, 0)
    x.set_shared_memory("region", 4 * WIDTH)
    code, message = refused(lambda: made.infer("urgent", [x, pick]))
    assert (code, "shared memory is not offered" in message) == (unsupported, True)
    code, _ = refused(made.get_system_shared_memory_status)
    assert code == unsupported


@BOTH
def test_a_sample_that_fails_is_an_internal_error(client: Callable[[types.ModuleType], Any], library: Any) -> None:
    code, message = refused(lambda: client(library).infer("urgent", inputs(library, 0, pick=ROWS)))
    assert code == status(library, 500, "INTERNAL")
    assert "block 2" in message


@BOTH
def test_sequences_are_refused(client: Callable[[types.ModuleType], Any], library: Any) -> None:
    code, _ = refused(lambda: client(library).infer("urgent", inputs(library, 0), sequence_id=5, sequence_start=True))
    assert code == status(library, 501, "UNIMPLEMENTED")


def post(service: planner.Service, body: bytes, path: str = "/v2/models/urgent/infer", **headers: str) -> Any:
    request = Request(service.url + path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urlopen(request) as response:
            return response.status, json.loads(response.read() or b"null")
    except HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


X = {"name": "x", "datatype": "FP32", "shape": [1, WIDTH], "data": [0.0] * WIDTH}
PICK = {"name": "pick", "datatype": "INT64", "shape": [1], "data": [0]}


def test_nested_and_flat_numbers_are_the_same(service: planner.Service) -> None:
    answers = [
        post(service, json.dumps({"inputs": [{**X, "data": data}, PICK]}).encode())
        for data in ([0.5] * WIDTH, [[0.5] * WIDTH])
    ]
    assert answers[0] == answers[1]
    assert answers[0][0] == 200


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"data": [0.0] * (WIDTH - 1)}, "wrong number of values"),
        ({"data": [[0.0] * (WIDTH // 2)] * 2}, "nested"),
        ({"data": ["0"] * WIDTH}, "not values of FP32"),
        ({"data": [True] * WIDTH}, "not values of FP32"),
        ({"data": [1e39] * WIDTH}, "cannot hold"),
        ({"data": [10**400] * WIDTH}, "cannot hold"),
        ({"datatype": "INT8", "data": [128] * WIDTH}, "out of range"),
        ({"datatype": "INT8", "data": [1.0] * WIDTH}, "not values of INT8"),
        ({"datatype": "FP16", "data": [1.0] * WIDTH}, "binary data only"),
        ({"datatype": "BF16"}, "unsupported datatype"),
        ({"shape": [-1, WIDTH]}, "greater than or equal to 0"),
        ({"shape": ["1", WIDTH]}, "valid integer"),
        ({"parameters": {"binary_data_size": 4 * WIDTH}, "data": None}, "binary_data_size"),
        ({"name": None}, "inputs.0.name"),
    ],
)
def test_json_that_is_no_tensor_is_refused_in_words(
    service: planner.Service, change: dict[str, Any], what: str
) -> None:
    code, answer = post(service, json.dumps({"inputs": [{**X, **change}, PICK]}).encode())
    assert (code, what in answer["error"]) == (400, True), answer


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        (b"", {}, 400),
        (b"{", {}, 400),
        (b"[" * 100_000, {}, 413),
        (b"[" * 30_000, {}, 400),
        (b'{"inputs": [], "parameters": {"timeout": -1}}', {}, 400),
        (b'{"inputs": [], "parameters": {"priority": 1.5}}', {}, 400),
        (b'{"inputs": []}tail', {"Inference_Header_Content_Length": "14"}, 400),
        (b'{"inputs": []}', {"Inference_Header_Content_Length": "15"}, 400),
        (b'{"inputs": []}', {"Inference_Header_Content_Length": "x"}, 400),
        (b'{"inputs": []}', {"Content_Encoding": "br"}, 415),
        (b'{"inputs": []}', {"Content_Encoding": "gzip"}, 400),
        (b" " * 2_000_000, {}, 413),
    ],
)
def test_a_body_that_is_no_request_is_refused(
    service: planner.Service, body: bytes, headers: dict[str, str], code: int
) -> None:
    assert post(service, body, **headers)[0] == code


def test_a_small_body_does_not_become_a_large_one(service: planner.Service) -> None:
    assert post(service, zlib.compress(b" " * 50_000_000), Content_Encoding="deflate")[0] == 413


def test_other_addresses_are_told_in_json(service: planner.Service) -> None:
    assert post(service, b"{}", "/v2/nothing")[0] == 404
    assert post(service, b"{}", "/v2")[0] == 405
    assert post(service, b"{}", "/v2/repository/models/urgent/load")[0] == 501


# ---- every dtype ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Iterator[planner.Service]:
    plan = write_every(tmp_path_factory.mktemp("every"))
    with planner.Service(plan, listen="127.0.0.1:0", grpc_listen="127.0.0.1:0") as opened:
        yield opened


@BOTH
def test_values_of_every_dtype_come_back_as_they_were(every: planner.Service, library: Any) -> None:
    address = every.address if library is HTTP else every.grpc_address
    sent = {f"x_{dtype}": values(dtype) for dtype in DTYPES}
    with library.InferenceServerClient(address) as made:
        result = made.infer("all-types", [tensor(library, name, array) for name, array in sent.items()])
    for dtype in DTYPES:
        back = result.as_numpy(f"y_{dtype}")
        assert back.dtype == np.dtype(dtype)
        assert back.tobytes() == sent[f"x_{dtype}"].tobytes()


def test_values_of_every_dtype_but_float16_go_through_json(every: planner.Service) -> None:
    entries = []
    binary = values("float16").tobytes()
    for dtype in DTYPES:
        entry: dict[str, Any] = {"name": f"x_{dtype}", "shape": SHAPE}
        entry["datatype"] = "FP" + dtype[5:] if dtype.startswith("float") else dtype.upper()
        if dtype == "float16":
            entry["parameters"] = {"binary_data_size": len(binary)}
        else:
            entry["data"] = values(dtype).ravel().tolist()
        entries.append(entry)
    wanted = [{"name": f"y_{dtype}"} for dtype in DTYPES if dtype != "float16"]
    head = json.dumps({"inputs": entries, "outputs": wanted}).encode()
    path, length = "/v2/models/all-types/infer", str(len(head))
    code, answer = post(every, head + binary, path, Inference_Header_Content_Length=length)
    assert code == 200, answer
    for output in answer["outputs"]:
        dtype = output["name"].removeprefix("y_")
        assert np.array(output["data"], dtype).tobytes() == values(dtype).tobytes()
    head = json.dumps({"inputs": entries, "outputs": [{"name": "y_float16"}]}).encode()
    code, answer = post(every, head + binary, path, Inference_Header_Content_Length=str(len(head)))
    assert (code, "binary data only" in answer["error"]) == (400, True)


def test_numbers_that_json_cannot_hold_are_not_returned_as_others(every: planner.Service) -> None:
    own = {f"x_{dtype}": values(dtype) for dtype in DTYPES}
    own["x_float32"] = np.full(SHAPE, np.nan, np.float32)
    with HTTP.InferenceServerClient(every.address) as made:
        sent = [tensor(HTTP, name, array) for name, array in own.items()]
        as_bytes = made.infer("all-types", sent, outputs=[HTTP.InferRequestedOutput("y_float32")])
        assert np.isnan(as_bytes.as_numpy("y_float32")).all()
        as_json = [HTTP.InferRequestedOutput("y_float32", binary_data=False)]
        code, message = refused(lambda: made.infer("all-types", sent, outputs=as_json))
    assert (code, "no numbers" in message) == ("400", True)


def test_values_in_the_fields_of_their_datatypes(every: planner.Service) -> None:
    """As clients without raw bytes send them; the result then comes in the same form, unless a dtype has none."""
    ask, answer = message_classes(SERVICE.methods_by_name["ModelInfer"])
    fields = {"bool": "bool_contents", "float32": "fp32_contents", "float64": "fp64_contents"}
    fields |= {"int64": "int64_contents", "uint64": "uint64_contents"}
    request = ask(model_name="all-types")
    for dtype in DTYPES:
        name = "FP" + dtype[5:] if dtype.startswith("float") else dtype.upper()
        field = fields.get(dtype, "uint_contents" if dtype.startswith("uint") else "int_contents")
        entry = request.inputs.add(name=f"x_{dtype}", datatype=name, shape=SHAPE)
        getattr(entry.contents, field).extend(values(dtype).ravel().tolist() if dtype != "float16" else [])
    with grpc.insecure_channel(every.grpc_address) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer", ask.SerializeToString, answer.FromString
        )
        with pytest.raises(grpc.RpcError) as caught:
            call(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "FP16" in caught.value.details()
        request.inputs[0].contents.int_contents.append(1)
        with pytest.raises(grpc.RpcError) as caught:
            call(request)
        assert "bool_contents" in caught.value.details()
