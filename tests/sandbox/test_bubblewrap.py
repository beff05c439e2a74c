"""Boxes of bubblewrap: what commands find, what stays between them, what the worker reads, what is left after it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contextrl_verl.sandbox import Base, InfrastructureError, Limits


@pytest.fixture
def box(bubblewrap, made_repository):
    box = bubblewrap(Limits(seconds=20)).start(Base(made_repository))
    yield box
    box.close()


def test_a_command_finds_its_user_its_place_and_nothing_of_the_worker(box, monkeypatch):
    done = box.run(
        "id -un; pwd; git log --format=%s; touch code.py && echo writable; cat /proc/self/status | grep CapEff"
    )
    assert done.output.split("\n") == ["agent", "/testbed", "all", "writable", "CapEff:\t0000000000000000", ""]
    assert (done.returncode, done.ended) == (0, "")
    names = box.run("env | cut -d= -f1").output.split()
    assert not set(names) & {"VIRTUAL_ENV", "PYTHONPATH", "CONTEXTRL_CACHE", "PYTEST_CURRENT_TEST"}
    assert box.run("python -c 'import sys; print(sys.version_info[:2], sys.prefix)'").output.split(") ") == [
        str(sys.version_info[:2])[:-1],
        f"{sys.prefix}\n",
    ]


@pytest.mark.parametrize(
    ("command", "returncode", "output"),
    [
        ("exit 3", 3, ""),
        ("kill -SEGV $$", 139, ""),
        ("echo out; echo err >&2; echo out", 0, "out\nerr\nout\n"),
        ("no-such-program", 127, "bash: line 1: no-such-program: command not found\n"),
        ("cat", 0, "given é\n"),
        ("printf '\\377ab'", 0, "\ufffdab"),
        ("yes | head -1; echo ${PIPESTATUS[0]}", 0, "y\n141\n"),
        ("if", 2, None),
    ],
)
def test_how_a_command_ends(box, command, returncode, output):
    done = box.run(command, stdin="given é\n")
    assert (done.returncode, done.ended) == (returncode, "")
    assert output is None or done.output == output


def test_files_stay_between_commands_and_processes_do_not(box):
    box.run("echo 1 > /tmp/a; echo 2 > ~/b; echo 3 > c; echo 4 > /dev/shm/d; sleep 1000 & disown")
    assert box.run("cat /tmp/a ~/b c /dev/shm/d; ps -e 2>/dev/null | grep -c sleep").output == "1\n2\n3\n4\n0\n"


def test_a_command_that_is_ended_leaves_the_box_usable(box):
    done = box.run("echo before; sleep 1000", seconds=0.3)
    assert (done.returncode, done.output, done.ended) == (137, "before\n", "timeout")
    assert box.run("echo after").output == "after\n"


def test_large_input_and_output(box):
    given = "line é\n" * 100_000
    assert box.run("wc -c", stdin=given).output == f"{len(given.encode())}\n"
    done = box.run("cat", stdin=given)
    left_out = len(given.encode()) - Limits().output_bytes
    assert f"\n[... {left_out} bytes left out ...]\n" in done.output
    assert done.output.startswith("line é\n")
    assert done.output.endswith("line é\n")


def test_reading_and_writing(box):
    box.write("new/folder/file.txt", b"\0bytes")
    box.write("/tmp/x", b"first, which is longer")
    box.write("/tmp/x", b"second")
    assert (
        box.run("cat new/folder/file.txt | wc -c; cat /tmp/x; stat -c %U /tmp/x new/folder").output
        == "6\nsecondagent\nagent\n"
    )
    assert box.read("/testbed/code.py") == b"one = 1\ntwo = 2\nthree = 3\n"
    box.run(
        "chmod 000 code.py; mkfifo pipe; ln -s loop loop; ln -s /etc/passwd passwd; ln -s ../../../../etc/passwd up"
    )
    assert box.read("code.py").startswith(b"one")
    assert box.read("passwd") == box.read("up") != Path("/etc/passwd").read_bytes()
    for path, error in (("nothing", FileNotFoundError), ("pipe", OSError), ("loop", OSError), ("package", OSError)):
        with pytest.raises(error):
            box.read(path)


def test_the_diff_is_all_that_differs(box, made_repository):
    assert box.diff() == ""
    box.run(
        "sed -i 's/two = 2/two = 22/' code.py; git add -A; git commit -qmm; echo '*.log' > .gitignore; echo x > a.log; "
        "rm run.sh; chmod +x package/__init__.py; printf 'x\\0' > picture.bin; ln -sfn package link; mkdir none; "
        "touch -d 2001-01-01 code.py; git init -q inner; echo y > inner/y; echo 'mischief = 1' > .git/config"
    )
    patch = box.diff()
    headers = [line.split(" b/")[1] for line in patch.splitlines() if line.startswith("diff --git")]
    files = [".gitignore", "a.log", "code.py", "inner/y", "link", "package/__init__.py", "picture.bin", "run.sh"]
    assert headers == files
    assert "-two = 2\n+two = 22\n" in patch
    assert "mischief" not in patch
    assert subprocess.run(["git", "status", "--short"], cwd=made_repository, capture_output=True).stdout == b""


def test_an_edit_that_hides_its_time_and_size_is_seen(box):
    box.run("touch -r code.py /tmp/t; sed -i 's/one = 1/one = 9/' code.py; touch -r /tmp/t code.py")
    assert "+one = 9\n" in box.diff()


@pytest.mark.parametrize("command", ["echo a\0b", "echo " + "x" * (128 << 10), "echo \ud800"])
def test_a_command_that_no_shell_can_be_given(box, command):
    assert box.run(command).returncode in (126, 0)
    assert box.run("echo on").output == "on\n"


def test_what_a_command_takes_away_is_not_the_sandboxs_fault(box):
    box.run("echo new > new; chmod 000 /testbed")
    done = box.run("echo")
    assert (done.returncode, done.ended) == (126, "")
    assert "Permission denied" in done.output
    assert "+new\n" in box.diff()


def test_a_path_of_almost_any_length(box):
    deep = "/".join(["d" * 200] * 20)
    box.run(f"mkdir -p {deep}; cd {deep} && for n in 10 60 250; do touch $(printf %0${{n}}d 0); done")
    assert box.diff() == ""


def test_a_tree_too_deep_to_name_is_no_trouble(box):
    box.run(
        "for i in $(seq 60); do mkdir " + "d" * 200 + " && cd " + "d" * 200 + "; done; touch x; cd /testbed; touch seen"
    )
    assert box.diff() == "diff --git a/seen b/seen\nnew file mode 100644\n"


def test_boxes_do_not_see_each_other(bubblewrap, made_repository):
    sandbox = bubblewrap()
    boxes = [sandbox.start(Base(made_repository)) for _ in range(2)]
    boxes[0].run("echo mine > code.py; echo mine > /tmp/x")
    assert (
        boxes[1].run("cat code.py /tmp/x").output
        == "one = 1\ntwo = 2\nthree = 3\ncat: /tmp/x: No such file or directory\n"
    )
    for box in boxes:
        box.close()


def test_an_unpacked_image_is_the_root(bubblewrap, made_repository, tmp_path):
    image = tmp_path / "image"
    for name in ("etc", "testbed", "opt", "tmp", "usr/bin", "outside"):
        (image / name).mkdir(parents=True)
    (image / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh")
    (image / "testbed/inside.py").write_text("of the image\n")
    (image / "opt/link").symlink_to("/outside")
    for program in ("bash", "cat", "touch", "id", "ls", "sed"):
        (image / "usr/bin" / program).write_bytes(Path("/usr/bin", program).read_bytes())
        (image / "usr/bin" / program).chmod(0o755)
    copied = set()
    for program in ("bash", "id", "sed", "ls"):
        said = subprocess.run(["ldd", f"/usr/bin/{program}"], capture_output=True, text=True).stdout
        copied |= {word for word in said.split() if word.startswith("/")}
    for library in copied:
        target = image / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(Path(library).read_bytes())
        target.chmod(0o755)
    (image / "bin").symlink_to("usr/bin")
    shutil.copytree("/usr/lib/locale/C.utf8", image / "usr/lib/locale/C.utf8")
    before = sorted(map(str, image.rglob("*")))
    for folder, listed in ((None, "inside.py\n"), (made_repository, "code.py\nlink\npackage\npicture.bin\nrun.sh\n")):
        box = bubblewrap().start(Base(folder, image=str(image), hidden=("/opt", "/no/such")))
        assert (
            box.run("ls; id -un; ls /opt; touch /outside/x && echo can install").output
            == f"{listed}agent\ncan install\n"
        )
        box.write("new.py", b"x\n")
        assert [line for line in box.diff().splitlines() if line.startswith("diff")] == ["diff --git a/new.py b/new.py"]
        box.close()
    assert sorted(map(str, image.rglob("*"))) == before


def test_what_fails_is_the_infrastructures_fault_and_names_it(bubblewrap, made_repository, tmp_path):
    with pytest.raises(InfrastructureError, match="nowhere is no folder"):
        bubblewrap().start(Base(tmp_path / "nowhere"))
    box = bubblewrap().start(Base(made_repository))
    os.killpg(box._process.pid, signal.SIGKILL)
    with pytest.raises(InfrastructureError, match="the keeper of a box ended"):
        box.run("echo")
    with pytest.raises(InfrastructureError):
        box.diff()
    box.close()
    empty = tmp_path / "empty"
    (empty / "testbed").mkdir(parents=True)
    box = bubblewrap().start(Base(None, image=str(empty)))
    with pytest.raises(InfrastructureError, match="could not start a command: bwrap: execvp bash"):
        box.run("echo")


OWNER = """
import os, sys, threading
from pathlib import Path
from contextrl_verl.sandbox import Base, open_sandbox
box = open_sandbox().start(Base(Path(sys.argv[1])))
command = "sleep 54321 & setsid nohup sleep 54322 & wait"
threading.Thread(target=box.run, args=[command], kwargs={"seconds": 600}, daemon=True).start()
while not any(b"54322" in open(f"/proc/{p}/cmdline", "rb").read() for p in os.listdir("/proc") if p.isdigit()): pass
print("running", flush=True)
threading.Event().wait()
"""


def running(*words: str) -> list[str]:
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            said = Path("/proc", process, "cmdline").read_text(errors="replace")
        except OSError:
            continue
        found += [said for word in words if word in said]
    return found


@pytest.mark.usefixtures("bubblewrap")
def test_nothing_outlives_a_worker_that_is_killed(made_repository):
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(made_repository)], stdout=subprocess.PIPE, text=True)
    keepers = len(running("from keeper.box import main"))
    assert owner.stdout.readline() == "running\n"
    assert running("54321", "54322")
    owner.kill()
    owner.wait()
    owner.stdout.close()
    until = time.monotonic() + 5
    while (running("sleep\x0054321", "sleep\x0054322") or len(running("from keeper.box import main")) > keepers) and (
        time.monotonic() < until
    ):
        time.sleep(0.05)
    assert not running("sleep\x0054321", "sleep\x0054322")
    assert "testbed" not in Path("/proc/self/mountinfo").read_text()
