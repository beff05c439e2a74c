"""Answers questions about one function until its input ends. Runs inside the scratch folder.

Every question is a JSON line and is answered by a fork of this process, which has imported the library: nothing that a
call does is seen by the next one. ``{"op": "invent", ...}`` is for invent.py; ``{"op": "observe", "source": text or
null, "calls": [...]}`` replaces the function by the one that ``source`` defines and makes the calls. Answers are JSON
lines on standard output; null when the fork was ended by a limit or crashed.
"""

import inspect
import json
import os
import select
import signal
import sys

import sitecustomize
from invent import invent, located
from observe import from_here, observed, prepare


def replaced(module, qualname, source):
    """Put the code and defaults of the function in ``source`` into the function of the library."""
    _, function = located(module, qualname)
    function = inspect.unwrap(function)
    names = dict(vars(module))
    exec(compile(source, module.__file__, "exec", dont_inherit=True), names)
    *owners, name = qualname.split(".")
    new = names[owners[0]].__dict__[name] if owners else names[name]
    function.__code__ = new.__code__
    function.__defaults__ = new.__defaults__
    function.__kwdefaults__ = new.__kwdefaults__


def answer(request, module):
    """Runs in the fork."""
    if request["op"] == "invent":
        return invent(request, module)
    if request["source"] is not None:
        replaced(module, request["qualname"], request["source"])
    return observed(request["calls"], request["seconds"])


def forked(request, module, seconds):
    """The answer's JSON, from a fork that is ended after ``seconds``; ``null`` when it gave none."""
    reading, writing = os.pipe()
    sitecustomize.MAY_FORK = True
    child = os.fork()
    sitecustomize.MAY_FORK = False
    if child == 0:
        status = 1
        try:
            text = json.dumps(answer(request, module)).encode()
            while text:
                text = text[os.write(writing, text) :]
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    parts = []
    while select.select([reading], [], [], seconds)[0]:
        part = os.read(reading, 1 << 16)
        if not part:
            break
        parts.append(part)
    else:
        sitecustomize.MAY_KILL = True
        os.kill(child, signal.SIGKILL)
        sitecustomize.MAY_KILL = False
    os.close(reading)
    _, status = os.waitpid(child, 0)
    return b"".join(parts).decode() if status == 0 and parts else "null"


def main():
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    prepare()
    module = from_here(sys.argv[1])
    for line in sys.stdin:
        channel.write(("null" if module is None else forked(json.loads(line), module, float(sys.argv[2]))) + "\n")
        channel.flush()


if __name__ == "__main__":
    main()
