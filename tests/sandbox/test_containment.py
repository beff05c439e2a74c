"""Commands that would hurt the host, the other boxes or the next command."""

import pytest

from bench.attacks import ATTACKS, LIMITS, attack, host


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    with host(tmp_path_factory.mktemp("host")) as found:
        yield found


@pytest.fixture(scope="module")
def sandbox(bubblewrap):
    return bubblewrap(LIMITS)


def listed(folder):
    return {str(path): path.lstat().st_ctime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("what", ATTACKS, ids=[what.name for what in ATTACKS])
def test_the_box_holds(what, sandbox, made_repository, at):
    before = listed(made_repository)
    done, held, following = attack(sandbox, made_repository, what, at)
    assert held, done
    # Bubblewrap and the shell are all that runs.
    assert following[:3] == (0, "alive /proc/1 /proc/2\n", ""), done
    assert listed(made_repository) == before
