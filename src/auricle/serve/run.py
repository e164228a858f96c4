"""Runs the application: loads the models beside it, and ends without breaking an answer."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable
from threading import Thread, Timer
from time import sleep
from types import FrameType
from typing import TYPE_CHECKING, Any

from auricle.errors import ConfigError
from auricle.serve.app import create_app

if TYPE_CHECKING:
    from auricle.serve.service import Models, Service
    from auricle.serve.settings import Settings

_FUSE = 512  # connections, far above what admission lets in: uvicorn refuses more without a word of why
_BACKLOG = 512  # connections that wait to be taken
_GRACE_S = 30  # for the answers that are in work when the server ends


def run(
    settings: Settings,
    load: Callable[[], Models],
    *,
    host: str,
    port: int,
    drain_s: float = 5.0,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until a signal ends it.

    Args:
        settings: limits and budgets.
        load: gives the models; called in a thread, while the server already says that it is loading.
        host: address to listen at; see `auricle.serve.settings.check_exposed`.
        port: 0: any that is free.
        drain_s: after SIGTERM, how long requests are still taken while `/health` sends new ones elsewhere.
        on_ready: called with the address once the models are loaded.

    Raises:
        AuricleError: what ``load`` raises.
        ConfigError: another program listens there, or there is no such address.
        MissingExtra: the packages of the extra ``serve`` are not installed.
    """
    app: Any = create_app(settings)
    opened = _listen(host, port)
    import uvicorn

    _log_to_stderr()
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        log_level="warning",
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_FUSE,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = draining_server(config, app.service, drain_s)
    failures: list[BaseException] = []

    def load_models() -> None:
        try:
            app.service.serve(load())
            while not server.started and not server.should_exit:
                sleep(0.01)
            on_ready(f"http://{f'[{host}]' if ':' in host else host}:{opened.getsockname()[1]}")
        except BaseException as error:  # raised again by the thread that runs the server
            failures.append(error)
            server.should_exit = True

    loading = Thread(target=load_models, name="auricle-load", daemon=True)
    loading.start()
    server.run([opened])
    app.service.close()
    for error in failures:
        raise error


def _listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections at an address.

    Raises:
        ConfigError: it cannot be had.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # asyncio sends at once (TCP_NODELAY) only on sockets whose protocol is stated, and else waits for 40 ms.
        opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise _cannot_listen(host, port, error) from None
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(_BACKLOG)
    except OSError as error:
        opened.close()
        raise _cannot_listen(host, port, error) from None
    return opened


def _cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot listen at {host}, port {port} ({error.strerror or error}); choose others with --host and --port"
    )


def draining_server(config: Any, service: Service, drain_s: float) -> Any:
    """A server of uvicorn that at SIGTERM first sends new requests elsewhere, then takes none, then ends."""
    import uvicorn

    class Draining(uvicorn.Server):
        """See `draining_server`."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """Take a signal; a second one, or one of the keyboard, does not wait."""
            is_first, service.is_leaving = not service.is_leaving, True
            if sig != signal.SIGTERM or not is_first:
                service.admission.is_closed = True
                super().handle_exit(sig, frame)
                return
            timer = Timer(drain_s, self._end)
            timer.daemon = True
            timer.start()

        def _end(self) -> None:
            service.admission.is_closed = True
            self.should_exit = True

    return Draining(config)


def _log_to_stderr() -> None:
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it quotes what clients send
    log = logging.getLogger("auricle.serve")
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
