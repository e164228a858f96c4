"""A language model writes the captions of many clips at once; every answer is kept as soon as it is there."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from hashlib import sha256
from pathlib import Path

from auricle.curate.factory import prompt
from auricle.curate.factory.endpoint import Endpoint, EndpointError, EndpointSettings, RunStopped
from auricle.curate.factory.sheet import Sheet, Written
from auricle.data.untrusted_json import parse_json
from auricle.errors import AuricleError, DataError
from auricle.files import append_bytes, read_regular

_MAX_FILE = 4 << 30  # bytes of the kept answers
_IN_A_ROW = 10  # clips that failed one after the other: then the server does not work
_CHECK = 16  # hexadecimal digits of a line's own hash


def writer_of(settings: EndpointSettings) -> str:
    """Name and version of a model as a writer."""
    return f"{settings.model}@prompt-{prompt.VERSION}"


def rewriter(
    endpoint: Endpoint,
) -> Callable[[Sequence[Sheet], Path, Callable[[int], None]], dict[str, Written | AuricleError]]:
    """The function that a run calls, see `auricle.curate.factory.run.caption_sources`."""
    return partial(_rewrite, endpoint)


def _rewrite(
    endpoint: Endpoint, sheets: Sequence[Sheet], path: Path, advance: Callable[[int], None]
) -> dict[str, Written | AuricleError]:
    """What the model writes of each clip, by hash, or why it does not; kept answers are not asked for again.

    A clip that failed is asked for again by the next run.
    """
    writer, kept = writer_of(endpoint.settings), _kept(path)
    found: dict[str, Written | AuricleError] = {}
    waiting = []
    for sheet in sheets:
        reply = kept.get(_request(endpoint.settings, sheet))
        if reply is None:
            waiting.append(sheet)
        else:
            found[sheet.clip_hash] = prompt.written(reply, sheet, writer)
            advance(1)
    failures = 0
    stop = threading.Event()
    with ThreadPoolExecutor(endpoint.settings.concurrency) as threads:
        futures = {threads.submit(_ask, endpoint, sheet, stop): sheet for sheet in waiting}
        for future in as_completed(futures):
            sheet = futures[future]
            try:
                reply = future.result()
            except (EndpointError, RunStopped) as error:
                found[sheet.clip_hash] = error
                failures += 1
                if isinstance(error, RunStopped) or failures >= _IN_A_ROW:
                    stop.set()
            else:
                failures = 0
                _keep(path, _request(endpoint.settings, sheet), reply)
                found[sheet.clip_hash] = prompt.written(prompt.read_reply(reply, "reply"), sheet, writer)
            advance(1)
    return found


def _ask(endpoint: Endpoint, sheet: Sheet, stop: threading.Event) -> str:
    """The text of an answer that the schema allows."""
    if stop.is_set():
        raise RunStopped("not asked: an earlier request showed that the server does not work, or a limit is reached")

    def check(text: str) -> str:
        prompt.read_reply(text, "reply")
        return text

    answer: str = endpoint.ask(prompt.messages(sheet), prompt.schema(endpoint.settings.max_tokens), check)
    return answer


def _request(settings: EndpointSettings, sheet: Sheet) -> str:
    """Hash of all that decides an answer."""
    decided = [writer_of(settings), prompt.SYSTEM, prompt.messages(sheet)[-1], settings.max_tokens]
    return sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()


def _keep(path: Path, request: str, text: str) -> None:
    line = json.dumps([request, text])
    append_bytes(path, f"{sha256(line.encode()).hexdigest()[:_CHECK]} {line}\n".encode())


def _kept(path: Path) -> Mapping[str, prompt.Reply]:
    """Answers by request; a line that a kill cut, or that is damaged, does not count."""
    found: dict[str, prompt.Reply] = {}
    if not path.exists():
        return found
    content = read_regular(path, _MAX_FILE)
    if content and not content.endswith(b"\n"):
        append_bytes(path, b"\n")  # so that the next line starts where lines do
    for line in content.decode("utf-8", "replace").split("\n"):
        digest, _, own = line.partition(" ")
        if digest and sha256(own.encode()).hexdigest()[:_CHECK] == digest:
            try:
                request, text = parse_json(own)
                found[request] = prompt.read_reply(text, str(path))
            except (ValueError, TypeError, DataError):
                continue
    return found
