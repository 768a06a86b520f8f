"""A plan that runs on agents and takes requests by standard protocols."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from planner.api.applying import answer_request
from planner.api.plan import Plan, plan_of
from planner.api.scenario import Scenario
from planner.api.session import Session
from planner.errors import UsageError
from planner.execution.wire.security import refuse_open
from planner.files import StrPath
from planner.serve.addresses import Address, bind, read_address
from planner.serve.gateway import Gateway
from planner.serve.watch import Watch

if TYPE_CHECKING:
    from planner.serve.chat_template import Tokenizer

APPLIERS: Final = ("local", "anyone", "none")

LIMIT = 32
"""Default maximum number of requests in flight of a source."""


class Service(AbstractContextManager["Service"]):
    """A plan that runs on agents and answers the Open Inference Protocol, as a context manager.

    ::

        with planner.Service(plan, listen="127.0.0.1:8000") as service:
            service.wait()

    Each source is a model. On leaving, new requests are refused and those in flight are answered; then the agents are
    released.

    Parameters
    ----------
    plan
        The plan, or its file.
    listen
        ``HOST:PORT`` of the HTTP server; port 0 is a free one.
    grpc_listen
        The same of the gRPC server; None for no such server.
    name
        Name of the service in its state; that of the plan's file by default.
    grace_s
        Time in seconds for requests in flight on leaving; those that take longer fail.
    limit
        Maximum number of requests in flight of a source; further ones are refused until some have a result.
    access_log
        Whether to log each request to the logger ``planner.access``.
    appliers
        Who may have the service follow another plan (``POST /apply``, as by ``planner apply``): ``local``, programs on
        this machine; ``anyone`` who reaches it, with models in the folder of the plan's scenario only; ``none``.
    tokenizers
        ``tokenizer.json`` of sources that generate, by name; the bytes of a text are its tokens without one. A chat
        template beside it, ``chat_template.jinja`` or in ``tokenizer_config.json``, lets the source answer chats.
    insecure
        Whether the servers may listen on other than the loopback interface, where anyone who reaches them may send
        requests; and whether agents there may do without certificates.
    scenario, options
        As for :class:`planner.Session`.

    Raises
    ------
    PlannerError
        As for :class:`planner.Session`; or if an address is malformed, in use, or not on the loopback interface.
    """

    def __init__(
        self,
        plan: Plan | StrPath,
        *,
        listen: str = "127.0.0.1:8000",
        grpc_listen: str | None = None,
        name: str | None = None,
        grace_s: float = 30.0,
        limit: int = LIMIT,
        access_log: bool = False,
        appliers: str = "local",
        tokenizers: Mapping[str, StrPath] | None = None,
        insecure: bool = False,
        scenario: Scenario | StrPath | None = None,
        **options: Any,
    ) -> None:
        if appliers not in APPLIERS:
            raise UsageError(
                "not who may apply plans", where="--apply (appliers)", value=appliers, expected=" | ".join(APPLIERS)
            )
        self._http_address = read_address(listen, "listen")
        self._grpc_address = read_address(grpc_listen, "grpc_listen") if grpc_listen is not None else None
        if not insecure:
            refuse_open([address.host for address in (self._http_address, self._grpc_address) if address is not None])
        loaded = plan_of(plan, scenario)
        self.plan = loaded
        self._name = name or (loaded.path.stem if loaded.path is not None else "planner")
        self._grace_s = grace_s
        self._access_log = access_log
        self._appliers = appliers
        self._tokenizers = _read_tokenizers(tokenizers or {})
        self._watch = Watch(loaded.scenario.instance, loaded.spec)
        self._session = Session(loaded, limit=limit, insecure=insecure, observer=self._watch, **options)
        self._stack = ExitStack()
        self.address = ""
        """``HOST:PORT`` of the HTTP server, once entered."""
        self.grpc_address: str | None = None
        """``HOST:PORT`` of the gRPC server, once entered; None without one."""

    @property
    def url(self) -> str:
        """URL of the HTTP server."""
        return f"http://{self.address}"

    @property
    def session(self) -> Session:
        """The session that carries out the requests; its samples are not counted among those of the service."""
        return self._session

    def __enter__(self) -> Service:
        from planner.serve.server import Server  # its libraries are an extra

        with ExitStack() as stack:
            http = bind(self._http_address, "listen")
            stack.callback(http.close)
            if self._grpc_address is not None and self._grpc_address.port:
                bind(self._grpc_address, "grpc_listen").close()  # to tell at once that it is in use
            stack.enter_context(self._session)
            gateway = Gateway(self.plan.scenario.instance, self._session, self._watch)
            self.address = str(Address(self._http_address.host, http.getsockname()[1]))
            server = Server(
                self._name,
                gateway,
                http,
                self._grpc_address,
                grace_s=self._grace_s,
                access_log=self._access_log,
                tokenizers=self._tokenizers,
                apply=partial(answer_request, self._session, confined=self._appliers != "local"),
                appliers=self._appliers,
            )
            stack.enter_context(server)
            if self._grpc_address is not None and server.grpc_port is not None:
                self.grpc_address = str(Address(self._grpc_address.host, server.grpc_port))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the session takes no more samples; return whether that is so.

        Raises
        ------
        PlannerError
            That for which the session has ended, such as another run that took the agents over.
        """
        over = self._watch.over.wait(timeout_s)
        if over and self._watch.error is not None:
            raise self._watch.error
        return over


def _read_tokenizers(files: Mapping[str, StrPath]) -> dict[str, Tokenizer]:
    if not files:
        return {}
    from planner.serve.chat_template import Tokenizer  # its libraries are an extra

    return {name: Tokenizer.read(Path(file), f"tokenizers.{name}") for name, file in files.items()}
