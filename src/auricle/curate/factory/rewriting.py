"""A language model writes the captions of many clips at once; every answer is kept as soon as it is there."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

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


@dataclass
class Rewriter:
    """A language model that writes the captions of a run; see `auricle.curate.factory.run.caption_sources`."""

    endpoint: Endpoint
    answered: int = 0  # clips, in this run
    answered_s: float = 0.0  # of audio
    _failures: int = 0  # one after the other
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def writer(self) -> str:
        """Name and version of the model as a writer."""
        return writer_of(self.endpoint.settings)

    def usage(self) -> dict[str, Any]:
        """What this run asked for and got."""
        prompts, answers = self.endpoint.tokens
        return {
            "answered": self.answered,
            "answered_s": round(self.answered_s, 3),
            "requests": self.endpoint.requests,
            "retries": self.endpoint.retries,
            "prompt_tokens": prompts,
            "answer_tokens": answers,
            "cost": round(self.endpoint.cost, 6),
        }

    def write(
        self, sheets: Sequence[Sheet], path: Path, advance: Callable[[int], None]
    ) -> dict[str, Written | AuricleError]:
        """What the model writes of each clip, by hash, or why it does not.

        Answers are kept in the file and not asked for again; a clip that failed is asked for again by the next run.
        """
        kept = _kept(path)
        found: dict[str, Written | AuricleError] = {}
        waiting = []
        for sheet in sheets:
            reply = kept.get(_request(self.endpoint.settings, sheet))
            if reply is None:
                waiting.append(sheet)
            else:
                found[sheet.clip_hash] = prompt.written(reply, sheet, self.writer)
                advance(1)
        stop = threading.Event()
        with ThreadPoolExecutor(self.endpoint.settings.concurrency) as threads:
            futures = {threads.submit(self._ask, sheet, stop): sheet for sheet in waiting}
            for future in as_completed(futures):
                sheet = futures[future]
                try:
                    text = future.result()
                except (EndpointError, RunStopped) as error:
                    found[sheet.clip_hash] = error
                else:
                    found[sheet.clip_hash] = self._keep(path, sheet, text)
                advance(1)
        return found

    def _ask(self, sheet: Sheet, stop: threading.Event) -> str:
        """The text of an answer that the schema allows; after many failures, no request is made."""
        if stop.is_set():
            raise RunStopped("not asked: earlier requests showed that the server does not work, or a limit is reached")

        def check(text: str) -> str:
            prompt.read_reply(text, "reply")
            return text

        try:
            schema = prompt.schema(self.endpoint.settings.max_tokens)
            answer: str = self.endpoint.ask(prompt.messages(sheet), schema, check)
        except AuricleError as error:
            with self._lock:
                self._failures += 1
                if not isinstance(error, EndpointError) or self._failures >= _IN_A_ROW:
                    stop.set()
            raise
        with self._lock:
            self._failures = 0
        return answer

    def _keep(self, path: Path, sheet: Sheet, text: str) -> Written:
        line = json.dumps([_request(self.endpoint.settings, sheet), text])
        append_bytes(path, f"{sha256(line.encode()).hexdigest()[:_CHECK]} {line}\n".encode())
        self.answered, self.answered_s = self.answered + 1, self.answered_s + sheet.seconds
        return prompt.written(prompt.read_reply(text, "reply"), sheet, self.writer)


def _request(settings: EndpointSettings, sheet: Sheet) -> str:
    """Hash of all that decides an answer."""
    decided = [writer_of(settings), prompt.SYSTEM, prompt.messages(sheet)[-1], settings.max_tokens]
    return sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()


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
