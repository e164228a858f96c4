"""A Python that has imported what is slow to import: its processes are forked from one server and start at once.

As a program it is that server. ``serving`` gives a stand-in for ``sys.executable`` that understands ``-c CODE``,
``-m MODULE`` and ``SCRIPT``. A process has its own arguments, directory, environment and streams, and the stand-in
ends with its exit code or signal; who kills the stand-in kills the process, an instant later. Strings hash alike in
all processes of a server: where that may hide something, compare with a run of ``sys.executable``.
"""

import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

# The optimisers of torch import its compiler, and any model of transformers most of scipy: as slow as torch itself.
SLOW = (
    "torch._dynamo",
    "torch.distributed.nn.functional",
    "transformers.models.qwen2.modeling_qwen2",
    "omegaconf",
    "auricle.train.loop",
    "auricle.bench.run",
    "auricle.encode.encoder",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "transformers.models.bert.modeling_bert",
    "torch.export",
    "auricle.curate.filter",
    "auricle.encode.aligner",
    "auricle.weights.glap",
    "auricle.weights.export",
    "auricle.evaluate.run",
    "auricle.search.build",
    "tokenizers",
)

# Nothing is imported but what comes with every interpreter: this runs once for each process.
STAND_IN = """#!{python} -IS
import json, os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    call = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(call).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(call)
    code = int(server.recv(8) or -signal.SIGKILL)
if code == -signal.SIGINT:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextmanager
def serving() -> Iterator[str]:
    """The path of a program to use in the place of ``sys.executable``; where processes cannot be watched, that."""
    if not hasattr(os, "pidfd_open"):
        yield sys.executable
        return
    with tempfile.TemporaryDirectory() as folder:
        address, stand_in = f"{folder}/socket", Path(folder) / "python"
        stand_in.write_text(STAND_IN.format(python=sys.executable, address=address))
        stand_in.chmod(0o700)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            # One thread: a process that has started others had better not fork.
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            command, handed = [sys.executable, __file__, str(listener.fileno())], [listener.fileno()]
            server = subprocess.Popen(
                command, env=environment, pass_fds=handed, stdin=subprocess.PIPE, start_new_session=True
            )
        with server:  # closes its standard input, with which it ends
            yield str(stand_in)


def serve(listener: socket.socket) -> list[str]:
    """Fork for every caller; returns only in the processes that are started, with the arguments of each."""
    watchers: list[int] = []
    while True:
        if sys.stdin in select.select([listener, sys.stdin], [], [])[0]:
            os._exit(0)  # whoever needed this is gone
        caller, _ = listener.accept()
        watchers += [os.fork()]
        if watchers[-1]:
            caller.close()
            watchers = [each for each in watchers if not os.waitpid(each, os.WNOHANG)[0]]
            continue
        listener.close()
        head, streams, _, _ = socket.recv_fds(caller, 8, 3)
        with caller.makefile("rb") as file:
            arguments, folder, environment = json.loads(file.read(int.from_bytes(head, "big")))
        process = os.fork()
        if process:
            watch(process, caller)
        caller.close()
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
            os.close(stream)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        return arguments


def watch(process: int, caller: socket.socket) -> None:
    """Report to the caller how a process ended, or end it when the caller is gone."""
    ready, _, _ = select.select([caller, os.pidfd_open(process)], [], [])
    if caller in ready:
        os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    try:
        caller.sendall(str(code).encode())
    finally:
        os._exit(0)


def run(arguments: list[str]) -> None:
    """What ``python ARGUMENTS`` does."""
    first, *rest = [each for each in arguments if each != "-u"]
    if first == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102 - that is what -c asks for
    elif first == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [first, *rest], str(Path(first).resolve().parent)
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    for name in SLOW:
        import_module(name)
    gc.freeze()  # else each process copies all of it to look for garbage as it ends
    run(serve(socket.socket(fileno=int(sys.argv[1]))))
