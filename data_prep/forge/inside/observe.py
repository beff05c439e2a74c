"""Makes calls of the library in the working folder and writes what each gave. Runs inside the scratch folder.

Standard input: a JSON list of questions, each answered by a fork of this process that imports the library anew, so that
nothing a call does is seen by the next question. Question N's answer is the JSON file N in the folder of the first
argument; there is none when the fork was ended by a limit, crashed, or got the module from elsewhere.

    {"module", "files": {path: text instead of what is on disk}, "calls": [[imports, call], ...]} -> [[kind, text], ...]
    {"module", "files": {}, "invent": {"qualname", "literals", "seed"}}                 -> [[imports, call], ...]

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
import types
from importlib.machinery import SourceFileLoader

import sitecustomize

CALL_SECONDS = 0.1
FORK_SECONDS = 6
LONGEST = 240
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}| at 0x")


class TooLong(BaseException):
    """A call that did not come back in time."""


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
    except sitecustomize.Refused:
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
        from invent import invent

        return invent(module, outcome=outcome, **question["invent"])
    return outcomes(question["calls"])


def forked(question, target):
    sitecustomize.MAY_FORK = True
    child = os.fork()
    sitecustomize.MAY_FORK = False
    if child:
        os.waitpid(child, 0)
        return
    try:
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (min(FORK_SECONDS, most), most))
        text = json.dumps(answer(question))
        with open(target + ".part", "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(target + ".part", target)
    finally:
        os._exit(0)


def main(folder):
    questions = json.load(sys.stdin)
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
        forked(question, os.path.join(folder, str(number)))


if __name__ == "__main__":
    main(sys.argv[1])
