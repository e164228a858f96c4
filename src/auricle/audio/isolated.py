"""Decoding in a process of its own, whose memory and time the system bounds: for files of unknown origin.

The process gets the file as its standard input, opened for reading, and gives back blocks of samples and facts.
"""

from __future__ import annotations

import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import IO, Any

import numpy as np

from auricle import errors
from auricle.audio.facts import Facts, Samples
from auricle.audio.limits import Limits
from auricle.audio.sources import OpenSource
from auricle.errors import AudioError, AuricleError, BrokenAudio, ConfigError, LimitExceeded

_MEMORY_BYTES = 2 << 30  # address space: of Python and the decoders a third of it
_CPU_S = 900  # enough for half a day of any codec
_WAIT_S = 60.0  # for the first block, or the next one
_HEADER = 9  # bytes before each message: its kind and its length
_MOST_BYTES = 1 << 30  # of one message; a block holds a minute
_SAMPLES, _FACTS, _ERROR = b"S", b"F", b"E"


class IsolatedReading:
    """A range of a source that another process decodes, with the interface of `auricle.audio.reading.Reading`."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Take over a process; its first message has the facts of the header."""
        self._name, self._process = name, process
        self._facts = self._next_facts()

    def waveforms(self) -> Iterator[Samples]:
        """Yield float32 mono 16 kHz blocks; raises what the process raises."""
        while (message := self._read()) is not None:
            yield np.frombuffer(message, np.float32)
            self._facts = self._next_facts()

    def facts(self) -> Facts:
        """Facts of the source and of the samples read so far."""
        return self._facts

    def _next_facts(self) -> Facts:
        found = self._read()
        if found is None:
            raise self._ended()
        return _facts_of(found)

    def _read(self) -> bytes | None:
        """The next message; None: there are no more."""
        header = self._bytes(_HEADER)
        if not header:
            if self._process.wait(_WAIT_S):
                raise self._ended()
            return None
        kind, size = header[:1], int.from_bytes(header[1:], "big")
        if size > _MOST_BYTES or kind not in (_SAMPLES, _FACTS, _ERROR):
            raise BrokenAudio(f"{self._name}: its decoder gave no audio; the file may be hostile. Do not use it")
        message = self._bytes(size)
        if len(message) < size:
            raise self._ended()
        if kind == _ERROR:
            raise _error_of(message)
        return message

    def _bytes(self, size: int) -> bytes:
        """So many bytes, or fewer where the process ends."""
        pipe, parts, last = self._process.stdout, [], time.monotonic() + _WAIT_S
        assert pipe is not None
        while size:
            ready, _, _ = select.select([pipe], [], [], max(0.0, last - time.monotonic()))
            if not ready:
                self._process.kill()
                raise LimitExceeded(f"{self._name}: no audio within {_WAIT_S:g} s; cut it into shorter files")
            part = os.read(pipe.fileno(), min(size, 1 << 20))
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _ended(self) -> AudioError:
        """The error of a process that ended before its work was done."""
        code = self._process.wait()
        if code == -signal.SIGXCPU:
            return LimitExceeded(f"{self._name}: took over {_CPU_S} s of the processor; cut it into shorter files")
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        return BrokenAudio(
            f"{self._name}: its decoder ended {how}, for want of memory or by a fault; the file may be hostile. "
            "Do not use it"
        )


@contextmanager
def open_isolated(
    source: OpenSource, start_s: float, stop_s: float | None, limits: Limits, *, decode: bool = True
) -> Iterator[IsolatedReading]:
    """Start a process that reads a range of ``source``, or without ``decode`` only its header.

    Raises:
        ConfigError: the system cannot bound a process.
        AudioError: as of `auricle.audio.readers.open_reader`, or the process ended.
    """
    if not hasattr(os, "fork"):
        raise ConfigError("isolation needs the limits of a POSIX system; decode without it")
    request = {
        "name": source.name,
        "start_s": start_s,
        "stop_s": stop_s,
        "limits": asdict(replace(limits, isolate=False)),
        "decode": decode,
        "memory_bytes": _MEMORY_BYTES,
        "cpu_s": _CPU_S,
    }
    with _as_file(source) as file:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps(request)],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",  # modules are looked for in the working folder, which may hold the file
            env=_environment(),
        )
        try:
            yield IsolatedReading(source.name, process)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _environment() -> dict[str, str]:
    """The same modules as here, and one thread, since each takes address space."""
    paths = os.pathsep.join(path for path in sys.path if os.path.isabs(path))
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    return {**kept, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@contextmanager
def _as_file(source: OpenSource) -> Iterator[IO[bytes] | io.BufferedReader]:
    """The source as a file of the system: itself, or a copy."""
    if type(source.file) is io.BufferedReader and type(source.file.raw) is io.FileIO:
        source.file.seek(0)
        yield source.file
        return
    with tempfile.TemporaryFile() as copy:
        source.file.seek(0)
        shutil.copyfileobj(source.file, copy)
        copy.seek(0)
        yield copy


def _facts_of(message: bytes) -> Facts:
    found = json.loads(message)
    return Facts(**{**found, "notes": tuple(found["notes"])})


def _error_of(message: bytes) -> AuricleError:
    name, text = json.loads(message)
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, AuricleError)):
        kind = BrokenAudio
    error = kind.__new__(kind)
    AuricleError.__init__(error, text)
    return error


def _main(request: dict[str, Any]) -> None:
    """Decode standard input within limits, and write blocks and facts to standard output."""
    from auricle.audio.readers import open_reader
    from auricle.audio.reading import Reading, header_facts
    from auricle.audio.sources import open_source

    with suppress(ImportError):
        import auricle.audio.pyav  # noqa: F401 - before the limits are set
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints
    limits = Limits(**request["limits"])
    raw = io.FileIO(0)
    raw.name = request["name"]
    _set_limits(request["memory_bytes"], request["cpu_s"])
    try:
        with open_source(io.BufferedReader(raw), limits) as source, open_reader(source, limits) as reader:
            _send(output, _FACTS, json.dumps(asdict(header_facts(source.name, reader))).encode())
            if request["decode"]:
                reading = Reading(source.name, reader, request["start_s"], request["stop_s"], limits)
                for waveform in reading.waveforms():
                    _send(output, _SAMPLES, np.ascontiguousarray(waveform, np.float32).tobytes())
                    _send(output, _FACTS, json.dumps(asdict(reading.facts())).encode())
    except AuricleError as error:
        _send(output, _ERROR, json.dumps([type(error).__name__, str(error)]).encode())
    except MemoryError:
        most = f"{request['memory_bytes'] >> 20:,} MiB"
        text = f"{request['name']}: needs more than {most}; the file may be hostile. Do not use it"
        _send(output, _ERROR, json.dumps(["LimitExceeded", text]).encode())


def _set_limits(memory_bytes: int, cpu_s: int) -> None:
    import resource

    wanted = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 32,
    }
    for kind, most in wanted.items():
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        grace = 5 if kind == resource.RLIMIT_CPU and hard != most else 0  # s, so that the signal says why
        resource.setrlimit(kind, (most, most + grace))


def _send(output: IO[bytes], kind: bytes, message: bytes) -> None:
    output.write(kind + len(message).to_bytes(_HEADER - 1, "big") + message)
    output.flush()


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
