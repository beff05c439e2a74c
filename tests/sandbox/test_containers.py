"""The rungs for containers, with a docker and an apptainer that note how they were called and run the command here."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from contextrl_verl.errors import ConfigError
from contextrl_verl.sandbox import Base, InfrastructureError, Limits, open_sandbox, rungs

CLIENT = """#!{python}
import json, os, re, sys
arguments = sys.argv[1:]
with open("{calls}", "a") as file:
    print(json.dumps(arguments), file=file)
if "version" in arguments[0]:
    print("27.0")
elif arguments[0] == "kill":
    pass
elif "no-such-image" in arguments:
    print("Unable to find image 'no-such-image' locally", file=sys.stderr)
    sys.exit(125)
else:
    shown = [a.split(":") for a, flag in zip(arguments[1:], arguments) if flag in ("--volume", "--bind", "--home")]
    places = {{inside: outside for outside, inside, *_ in shown}}
    command = arguments[arguments.index("the-image") + 1 :]
    command = command if command[0] == "timeout" else ["timeout", *command]
    # Where the volumes are, and the repository that lies in the image.
    places = {{"/testbed": "{image}", **places}}
    inside = re.compile("(?<![/\\w])(/testbed|/tmp|/home/agent)(?=/)")
    texts = [inside.sub(lambda found: places[found[0]], text) for text in command]
    folder = next(a for a, flag in zip(arguments[1:], arguments) if flag in ("--workdir", "--pwd"))
    os.chdir(places[folder])
    os.execvp(texts[0], texts)
"""


@pytest.fixture(params=["docker", "apptainer"])
def client(request, tmp_path, monkeypatch):
    image = tmp_path / "image"
    image.mkdir()
    (image / "inside.py").write_text("of the image\n")
    program = tmp_path / "programs" / request.param
    program.parent.mkdir()
    calls = tmp_path / "calls"
    program.write_text(CLIENT.format(python=sys.executable, calls=calls, image=image))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return request.param, lambda: [json.loads(line) for line in calls.read_text().splitlines()]


def test_a_box(client, made_repository, tmp_path):
    program, calls = client
    box = open_sandbox(program, Limits(memory_bytes=1 << 30)).start(Base(made_repository, "the-image", ("/usr/copy",)))
    assert box.run("cat; cat code.py; sed -i 's/two/TWO/' code.py; exit 3", stdin="given\n")[:3] == (
        3,
        "given\none = 1\ntwo = 2\nthree = 3\n",
        "",
    )
    said = " ".join(calls()[-1])
    wanted = {"docker": "--network none --cap-drop ALL --memory 1073741824", "apptainer": "--containall --network none"}
    assert all(word in said for word in wanted[program].split())
    assert "nothing:/usr/copy:ro" in said
    assert "timeout" in calls()[-1] or program == "docker"
    box.write("/tmp/note", b"x")
    assert box.read("/tmp/note") == b"x"
    box.run("ln -s /etc/passwd out")
    with pytest.raises(FileNotFoundError):
        box.read("out")
    patch = box.diff()
    assert "-two = 2\n+TWO = 2\n" in patch
    assert patch.endswith("\n+/etc/passwd\n\\ No newline at end of file\n")
    box.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calls", "image", "programs"]


def test_a_repository_of_the_image(client, tmp_path):
    box = open_sandbox(client[0]).start(Base(None, "the-image"))
    assert box.run("cat inside.py; echo more >> inside.py").output == "of the image\n"
    assert "+more\n" in box.diff()
    box.close()


def test_the_clock_is_inside(client, made_repository):
    program, calls = client
    box = open_sandbox(program).start(Base(made_repository, "the-image"))
    done = box.run("echo began; sleep 1000", seconds=0.5)
    assert done[:3] == (137, "began\n", "timeout")
    assert calls()[-1][calls()[-1].index("KILL") + 1] == "0.500"
    assert box.run("kill -9 $$")[:3] == (137, "", "")
    box.close()


def test_endless_output_ends_the_client(client, made_repository):
    program, calls = client
    box = open_sandbox(program, Limits(output_bytes=1000)).start(Base(made_repository, "the-image"))
    done = box.run("yes")
    assert (done.returncode, done.ended) == (137, "output")
    assert len(done.output) < 1100
    assert (calls()[-1][0] == "kill") == (program == "docker")
    box.close()


def test_an_image_that_is_missing_is_the_infrastructures_fault(client, made_repository):
    sandbox = open_sandbox(client[0])
    with pytest.raises(InfrastructureError, match="needs an image, and this task names none"):
        sandbox.start(Base(made_repository))
    box = sandbox.start(Base(made_repository, "no-such-image"))
    with pytest.raises(InfrastructureError, match="could not start a container of no-such-image: Unable to find image"):
        box.run("echo")
    box.close()


def test_no_command_can_feign_that(client, made_repository):
    box = open_sandbox(client[0]).start(Base(made_repository, "the-image"))
    for code in (125, 255):
        done = box.run(f"echo Unable to find image; exit {code}")
        assert done[:3] == (code, "Unable to find image\n", "")
    box.close()


def test_what_a_command_takes_away_is_there_again(client, made_repository):
    box = open_sandbox(client[0]).start(Base(made_repository, "the-image"))
    box.run("chmod 000 /testbed/.")
    assert box.run("cat code.py").returncode == 0
    box.close()


def test_a_daemon_that_is_down(tmp_path, monkeypatch):
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\necho Cannot connect to the Docker daemon. >&2; exit 1\n")
    program.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = rungs()[-1]
    assert found[:3] == ("docker", False, "docker does not work here (Cannot connect to the Docker daemon)")
    with pytest.raises(ConfigError, match=r"sandbox docker cannot be used.*Fix: start its daemon"):
        open_sandbox("docker")


def test_no_program(monkeypatch):
    monkeypatch.setenv("PATH", str(Path("/nonexistent")))
    assert [found[1:] for found in rungs()[1:]] == [
        (False, "the program apptainer is not installed", "install apptainer"),
        (False, "the program docker is not installed", "install docker"),
    ]
