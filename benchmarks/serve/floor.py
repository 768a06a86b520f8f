"""What HTTP and gRPC cost by themselves: a bare server of each, which answers at once with as many bytes as it is sent.

It has the libraries of the service, its clients and sizes, and nothing else of it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import grpc.aio
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.serve.case import ROWS, SOURCE, WIDTH, sample
from planner.serve.addresses import bind, read_address
from planner.serve.protocol.messages import RESPONSES
from planner.serve.rest import HEADER_LENGTH

_TENSOR: Final = sample().tobytes()

_HEAD: Final = json.dumps(
    {
        "model_name": SOURCE,
        "model_version": "1",
        "outputs": [
            {
                "name": "y",
                "datatype": "FP32",
                "shape": [ROWS, WIDTH],
                "parameters": {"binary_data_size": len(_TENSOR)},
            }
        ],
    }
).encode()


async def _echo(request: Request) -> Response:
    body = await request.body()
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(_HEAD))}
    return Response(_HEAD + body[-len(_TENSOR) :], headers=headers)


class _Echo(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc has no types
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        del handler_call_details
        return grpc.unary_unary_rpc_method_handler(self._answer)

    @staticmethod
    async def _answer(_request: bytes, _context: object) -> bytes:
        return _ANSWER


def _answer() -> bytes:
    answer = RESPONSES["ModelInfer"](model_name=SOURCE, model_version="1")
    answer.outputs.add(name="y", datatype="FP32", shape=[ROWS, WIDTH])
    answer.raw_output_contents.append(_TENSOR)
    written: bytes = answer.SerializeToString()
    return written


_ANSWER: Final = _answer()


async def _serve() -> None:
    rpc = grpc.aio.server()
    rpc.add_generic_rpc_handlers((_Echo(),))
    port = rpc.add_insecure_port("127.0.0.1:0")
    await rpc.start()
    http = bind(read_address("127.0.0.1:0", "floor"), "floor")
    app = Starlette(routes=[Route(f"/v2/models/{SOURCE}/infer", _echo, methods=["POST"])])
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, server_header=False, ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[http]))
    while not server.started:
        await asyncio.sleep(0.005)
    print(json.dumps({"http": f"127.0.0.1:{http.getsockname()[1]}", "grpc": f"127.0.0.1:{port}"}), flush=True)
    await serving


@contextmanager
def floor() -> Iterator[tuple[str, str]]:
    """Run the bare servers as a process of its own; give their addresses for HTTP and gRPC."""
    with subprocess.Popen([sys.executable, "-m", __name__], stdout=subprocess.PIPE, text=True) as process:
        try:
            entry = json.loads(process.stdout.readline() if process.stdout is not None else "")
            yield entry["http"], entry["grpc"]
        finally:
            process.terminate()


if __name__ == "__main__":
    uvloop.run(_serve())
