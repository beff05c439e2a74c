"""Makes calls of the library in the working folder and notes what each gave. Runs in the box, as `python -c`.

Standard input: a JSON list of questions, each answered by a fork of this process that imports the library anew, so that
nothing a call does is seen by the next question. The file of the first argument gets a line ``[question, answer]`` for
each; there is none when the fork was ended by a limit, crashed, or got the module from elsewhere. Nothing here knows
what a right answer would be.

    {"module", "files": {path: text instead of what is on disk}, "calls": [[imports, call], ...]} -> [[kind, text], ...]
    {"module", "files": {}, "invent": {"source", "qualname", "literals", "seed"}}       -> [[imports, call], ...]

An outcome's kind is ``value``, ``error``, or ``bad`` when it says nothing.
"""

import importlib
import itertools
import json
import os
import re
import resource
import signal
import sys
import tempfile
import types
from importlib.machinery import SourceFileLoader

CALL_SECONDS = 0.1
FORK_SECONDS = 6
MEMORY = 1 << 30
LONGEST = 240
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}| at 0x")
# Their first arguments name what changes, of those with two files both.
_CHANGES = {
    *("os.chflags", "os.chmod", "os.chown", "os.mkdir", "os.remove", "os.removexattr", "os.rmdir", "os.setxattr"),
    *("os.truncate", "os.utime", "shutil.rmtree", "sqlite3.connect", "os.link", "os.rename", "os.symlink"),
}
_TWO_FILES = {"os.link", "os.rename", "os.symlink"}
_FORBIDDEN = (
    *("os.exec", "os.fork", "os.kill", "os.posix_spawn", "os.spawn", "os.startfile", "os.system", "pty.spawn"),
    *("signal.pthread_kill", "subprocess.Popen", "webbrowser.open", "ctypes.", "syslog."),
    *("ftplib.", "http.client.", "smtplib.", "socket.", "urllib.Request"),
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_WRITABLE = [os.path.realpath(path) for path in (os.getcwd(), tempfile.gettempdir(), os.path.expanduser("~"))]


class TooLong(BaseException):
    """A call that did not come back in time."""


class Refused(PermissionError):
    """A call that works on more than the working folder: what it gives would depend on the machine."""


def _outside(path):
    if isinstance(path, int):  # a descriptor that is open already
        return False
    full = os.path.realpath(os.fsdecode(path))
    return full != os.devnull and not any(full == root or full.startswith(root + os.sep) for root in _WRITABLE)


def guard(event, arguments):
    """An audit hook for calls with values drawn at random. No wall: that is the box around this process."""
    if event == "open":
        path, mode, flags = arguments
        writes = bool(flags & _WRITING) if isinstance(flags, int) else bool(set(mode or "r") & set("wax+"))
        if writes and path is not None and _outside(path):
            raise Refused(f"writing to {path!r} is not allowed here")
    elif event in _CHANGES:
        for path in arguments[: 2 if event in _TWO_FILES else 1]:
            if _outside(path):
                raise Refused(f"{event} on {path!r} is not allowed here")
    elif event.startswith(_FORBIDDEN) and event != "socket.gethostname":
        raise Refused(f"{event} is not allowed here")


def alarm(*_):
    raise TooLong


def outcome(imports, call):
    """``(kind, text)`` of one call."""
    names = {}
    try:
        for line in imports:
            exec(line, names)
    except BaseException:
        return "bad", "import"
    # Processor time first: a busy machine must not change what is found.
    signal.signal(signal.SIGPROF, alarm)
    signal.signal(signal.SIGALRM, alarm)
    try:
        try:
            signal.setitimer(signal.ITIMER_PROF, CALL_SECONDS)
            signal.setitimer(signal.ITIMER_REAL, 5 * CALL_SECONDS)
            value = eval(call, names)
            if isinstance(value, types.GeneratorType | map | filter | zip):
                value = list(itertools.islice(value, 40))
            kind, text = "value", repr(value)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
    except TooLong:
        return "bad", "timeout"
    except Refused:
        return "bad", "refused"
    except BaseException as error:
        kind, text = "error", f"{type(error).__name__}: {error}".removesuffix(": ")
    return ("bad", "unprintable") if len(text) > LONGEST or _ADDRESS.search(text) else (kind, text)


def outcomes(calls):
    """One for each call; after two that do not end the rest is not tried."""
    found = []
    for imports, call in calls:
        slow = found.count(("bad", "timeout")) >= 2
        found.append(("bad", "timeout") if slow else outcome(imports, call))
    return found


def from_here(name):
    """Import a module of the working folder; raises ImportError when Python takes it from elsewhere."""
    module = importlib.import_module(name)
    if not os.path.realpath(module.__file__ or "").startswith(os.getcwd() + os.sep):
        raise ImportError(f"{name} is taken from {module.__file__}")
    return module


def answer(question):
    """Runs in the fork."""
    on_disk = SourceFileLoader.get_data
    changed = {os.path.join(os.getcwd(), path): text.encode() for path, text in question["files"].items()}
    SourceFileLoader.get_data = lambda loader, path: changed.get(path) or on_disk(loader, path)
    module = from_here(question["module"])
    if "invent" in question:
        names = {}
        exec(question["invent"].pop("source"), names)
        return names["invent"](module, outcome=outcome, **question["invent"])
    return outcomes(question["calls"])


def at_most(limit, value):
    """Lower a limit of this process."""
    _, most = resource.getrlimit(limit)
    resource.setrlimit(limit, (value if most == resource.RLIM_INFINITY else min(value, most), most))


def forked(number, question, target):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        sys.addaudithook(guard)
        at_most(resource.RLIMIT_CPU, FORK_SECONDS)
        os.write(target, json.dumps([number, answer(question)]).encode() + b"\n")
    finally:
        os._exit(0)


def main(path):
    questions = json.load(sys.stdin)
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    at_most(resource.RLIMIT_AS, MEMORY)
    sys.path.insert(0, os.getcwd())
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    # What the library itself imports is loaded once and for all; the library's own modules are forgotten again.
    try:
        from_here(questions[0]["module"])
    except BaseException:
        return
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(os.getcwd() + os.sep):
            del sys.modules[name]
    for number, question in enumerate(questions):
        forked(number, question, target)


if __name__ == "__main__":
    main(sys.argv[1])
