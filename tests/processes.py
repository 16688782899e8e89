"""Python processes that start in a moment: forks of one that has imported what they import.

`start` and `run` take an interpreter's command line, as `subprocess.Popen` and `subprocess.run` do.
What they start is a process of its own, with its own environment, files, session, signals and exit
code; it only spends no seconds on importing PyTorch. It shares the hash seed of the others: what
is compared between processes should be compared with one from `subprocess`, too.

Elsewhere than on Linux they start the interpreter itself.
"""

import atexit
import functools
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import IO, Any

# The variable that names how multiprocessing starts its processes (see conftest.py).
START_METHOD = "FAST_STYLE_TEST_START_METHOD"
FORKS = sys.platform.startswith("linux")
_PRELOADED = (
    *("check_data", "convert", "evaluate", "models", "optimize", "stylize", "sweep", "train"),
)
# Of the server and of all that it starts: where another process is asked for.
_address: str | None = None


class Process:
    """A running Python process, as a `subprocess.Popen` without pipes."""

    def __init__(
        self,
        args: Sequence[object],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: IO[Any] | None = None,
        stdout: IO[Any] | int | None = None,
        stderr: IO[Any] | int | None = None,
        start_new_session: bool = False,
        largest_file: int | None = None,
    ) -> None:
        self.args = [str(argument) for argument in args]
        assert self.args[0] == sys.executable
        request = {
            "arguments": self.args[1:],
            "cwd": str(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
            "new_session": start_new_session,
            "largest_file": largest_file,
        }
        with Path(os.devnull).open() as nothing:
            files = [stdin or nothing, 1 if stdout is None else stdout]
            files.append(2 if stderr is None else stderr)
            handles = [file if isinstance(file, int) else file.fileno() for file in files]
            self._connection = _ask(request, handles)
        self.pid = _receive_number(self._connection)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(timeout=0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = _receive_number(self._connection)
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(args: Sequence[object], **options: Any) -> "Process | subprocess.Popen[str]":
    """Start a Python process; its output goes to files, or to where the tests' own goes."""
    if FORKS:
        return Process(args, **options)
    assert options.pop("largest_file", None) is None, "limits are for Linux"
    return subprocess.Popen([str(argument) for argument in args], text=True, **options)


def run(
    args: Sequence[object], *, timeout: float = 120, stdout: IO[Any] | None = None, **options: Any
) -> "subprocess.CompletedProcess[str]":
    """Run a Python process to its end; return its exit code, and what it wrote."""
    out, into_out = os.pipe()
    err, into_err = os.pipe()
    with ThreadPoolExecutor(2) as pool:
        written = [pool.submit(_read, handle) for handle in (out, err)]
        try:
            process = start(args, stdout=stdout or into_out, stderr=into_err, **options)
        finally:
            os.close(into_out)
            os.close(into_err)
        try:
            code = process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        return subprocess.CompletedProcess(process.args, code, *(text.result() for text in written))


def environment(folder: Path) -> dict[str, str]:
    """Return the environment in which modules are looked for in `folder` first."""
    paths = [str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _read(handle: int) -> str:
    with os.fdopen(handle) as file:
        return file.read()


def children_of(pid: int) -> dict[int, dict[str, str]]:
    """Return the environments of the living processes that `pid` has started here."""
    with _ask({"children_of": pid}, [0]) as connection, connection.makefile("rb") as answer:
        return {int(child): environment for child, environment in json.load(answer).items()}


def _ask(request: Mapping[str, object], files: Sequence[int]) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(_address or _start_server())
    text = json.dumps(request).encode()
    socket.send_fds(connection, [len(text).to_bytes(4, "big")], list(files))
    connection.sendall(text)
    return connection


def _receive_number(connection: socket.socket) -> int:
    data = connection.recv(4, socket.MSG_WAITALL)
    assert len(data) == 4, "the process that starts processes has gone: its errors are above"
    return int.from_bytes(data, "big", signed=True)


def _send_number(connection: socket.socket, number: int) -> None:
    with suppress(OSError):  # whoever asked may have gone
        connection.sendall(number.to_bytes(4, "big", signed=True))


@functools.cache
def _start_server() -> str:
    """Start the process that forks; it ends with this one. Return its address."""
    folder = tempfile.TemporaryDirectory()
    address = str(Path(folder.name) / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        code = f"import processes; processes.serve({listener.fileno()})"
        server = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parent,
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )

    def end() -> None:
        assert server.stdin is not None
        server.stdin.close()
        server.wait()
        folder.cleanup()

    atexit.register(end)
    return address


def serve(listener_handle: int) -> None:
    """Fork for whoever asks, until standard input ends; return from it in the forked process."""
    global _address
    del sys.path[0]  # the folder of the tests
    for name in _PRELOADED:
        importlib.import_module(f"fast_style.commands.{name}")
    importlib.import_module("torch.utils.tensorboard")
    gc.collect()
    gc.freeze()  # or each fork would copy every page to look at it
    listener = socket.socket(fileno=listener_handle)
    _address = listener.getsockname()
    _become(*_next_fork(listener))


def _next_fork(listener: socket.socket) -> tuple[dict[str, Any], list[int], socket.socket]:
    """Fork for each request, and tell how each fork ends; return only in a fork."""
    children: dict[int, tuple[int, int, dict[str, str], socket.socket]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == 0:
                    for child, *_ in children.values():
                        os.kill(child, signal.SIGKILL)
                    os._exit(0)
                if key.fd != listener.fileno():
                    child, _, _, connection = children.pop(key.fd)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                    _send_number(connection, code)
                    connection.close()
                    continue
                connection, _ = listener.accept()
                request, files = _receive(connection)
                if "children_of" in request:
                    found = {
                        c: e for c, p, e, _ in children.values() if p == request["children_of"]
                    }
                    with connection:
                        connection.sendall(json.dumps(found).encode())
                    for file in files:
                        os.close(file)
                    continue
                peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                parent = int.from_bytes(peer[:4], sys.byteorder)
                child = os.fork()
                if child == 0:
                    listener.close()
                    for handle, (*_, other) in children.items():
                        os.close(handle)
                        other.close()
                    return request, files, connection
                for file in files:
                    os.close(file)
                handle = os.pidfd_open(child)
                children[handle] = (child, parent, request["environment"], connection)
                selector.register(handle, selectors.EVENT_READ)


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    length, files, _, _ = socket.recv_fds(connection, 4, 3)
    text = connection.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL)
    return json.loads(text), files


def _become(request: Mapping[str, Any], files: Sequence[int], connection: socket.socket) -> None:
    """Be the interpreter that was asked for. Its end is that of the whole process."""
    import torch

    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    # The old ones know of other files, and whether one could seek in these.
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    if request["new_session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if request["largest_file"] is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"],) * 2)
    if method := os.environ.get(START_METHOD):
        multiprocessing.set_start_method(method, force=True)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    _send_number(connection, os.getpid())
    connection.close()

    arguments = list(request["arguments"])
    if arguments[0] == "-u":
        del arguments[0]
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    if arguments[0] == "-m":
        _run_module(arguments[1], arguments[2:])
        return
    main = sys.modules["__main__"] = ModuleType("__main__")
    if arguments[0] == "-c":
        _, code, *arguments[1:] = arguments
        name, sys.path[:0] = "<string>", [""]
    else:
        code, name = Path(arguments[0]).read_text(encoding="utf-8"), arguments[0]
        main.__file__, sys.path[:0] = name, [str(Path(name).resolve().parent)]
    sys.argv = arguments
    exec(compile(code, name, "exec"), main.__dict__)


def _run_module(name: str, arguments: Sequence[str]) -> None:
    sys.path.insert(0, str(Path.cwd()))
    sys.argv = [name, *arguments]
    if name == "torch.distributed.run":  # it shall start its processes here
        from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

        subprocess_handler.Popen = Process
    runpy.run_module(name, run_name="__main__", alter_sys=True)
