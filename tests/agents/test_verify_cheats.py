"""No way to be paid without a repair, but for the two that docs/agents.md names."""

import socket
import threading

import pytest
from cheats import CHEATS, FIX, Cheat, make_repository
from verify_factory import left_by, patch_of, task

from contextrl_verl.agents.path_policy import paths_of
from contextrl_verl.agents.task import TaskBase
from contextrl_verl.agents.verify import Reason, verify


@pytest.fixture(scope="module")
def port():
    """A server of this machine that knows the answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            while True:
                try:
                    server.accept()[0].sendall(b"3")
                except OSError:
                    return

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]


def judged(sandbox, lib, kind, cheat, port=0):
    wanted = task(lib, kind)
    return verify(wanted, patch_of(sandbox, wanted, cheat, port), sandbox)


@pytest.mark.parametrize("kind", ["forge", "table"])
@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_is_not_paid(sandbox, lib, port, kind, name):
    cheat = CHEATS[name]
    verdict = judged(sandbox, lib, kind, cheat, port)
    assert verdict.resolved == (kind in cheat.fools), verdict
    assert verdict.reason in Reason
    assert verdict.resolved or verdict.detail


def test_the_known_cheats_are_two_and_of_the_tests_only():
    fooling = {name: cheat.fools for name, cheat in CHEATS.items() if cheat.fools}
    assert fooling == {
        "an object equal to everything": ("table",),
        "pytest forgets failures of the library only": ("table",),
    }
    assert len(CHEATS) >= 35


# What a cheat leaves beside the module under repair, all of it in one box.
BESIDE = [cheat for cheat in CHEATS.values() if "lib/core.py" not in {*cheat.files, *cheat.command.split()}]
LEFT = Cheat(
    {name: text for cheat in BESIDE for name, text in cheat.files.items()},
    "; ".join(cheat.command or ":" for cheat in BESIDE),
)


@pytest.mark.parametrize("kind", ["forge", "table"])
@pytest.mark.parametrize("left", [Cheat(), LEFT], ids=["nothing", "everything"])
def test_a_repair_is_paid_whatever_it_leaves_beside(sandbox, lib, kind, left):
    verdict = judged(sandbox, lib, kind, left._replace(files={**left.files, **FIX}))
    assert verdict.resolved
    assert len(BESIDE) > 15
    assert sum(verdict.dropped.values()) > 15 or not left.files


def test_an_installed_copy_of_the_library_is_not_to_be_found(sandbox, tmp_path):
    """The repair lies in this Python's own packages, on the disk and in reach of pip."""
    folder = make_repository(tmp_path / "lib", {"sortedcontainers/__init__.py": "BUG = 1\n"})
    wanted = task(folder).model_copy(update={"base": TaskBase(folder=str(folder), packages=("sortedcontainers",))})
    copy = (
        "for d in $(find / -type d -name sortedcontainers 2>/dev/null); do cp -r $d/. found/; done; "
        "python -m pip download --no-deps --retries 0 -d found sortedcontainers; cd /; "
        'python -c \'import sortedcontainers as s; open("/testbed/found/it", "w").write(str(s.__file__))\''
    )
    patch = left_by(sandbox, wanted, {"found/start": "x\n"}, copy)
    assert paths_of(patch) == ["found/__init__.py", "found/it", "found/start"]
    assert "+BUG = 1" in patch
    assert "+None" in patch or "/testbed" in patch  # an empty folder is a name space, not a library
