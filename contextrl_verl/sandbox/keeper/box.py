"""The box itself: enter the name spaces, build the file system, then answer until the worker has gone."""

from __future__ import annotations

import errno
import os
import stat

from . import kernel
from .command import run
from .kernel import BOX, PLACE, ROOT
from .wire import Header, Listing, listing, receive, send

_SPACES = kernel.NEWUSER | kernel.NEWNS | kernel.NEWPID | kernel.NEWIPC | kernel.NEWUTS
_IN_MEMORY = kernel.NOSUID | kernel.NODEV


class Keeper:
    """``step`` names what is being done, for the message where that fails."""

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.step = "start"
        self.network = self.copied = False

    def enter(self, ask: Header) -> None:
        """Into the name spaces, with every source shown read-only under PLACE; returns in the pid name space's init."""
        self.ask, self.copied = ask, ask["copy"]
        drop = kernel.can_drop()
        user = 61000 + os.getpid() % 4000 if drop else os.geteuid()
        self.step = "namespace"
        if drop:
            kernel.unshare(kernel.NEWNS)
        else:
            group = os.getegid()
            kernel.unshare(_SPACES)
            kernel.map_ids("self", 0, user, 0, group)
        self.step = "mount"
        kernel.mount("none", "/", flags=kernel.REC | kernel.PRIVATE)
        opened = {name: os.open(source, os.O_PATH) for name, source in ask["sources"].items()}
        kernel.mount("keeper", PLACE, "tmpfs", _IN_MEMORY, "size=1m,mode=755")
        os.mkdir(BOX)
        for name, source in opened.items():
            target = f"{PLACE}/{name}"
            if stat.S_ISDIR(os.fstat(source).st_mode):
                os.mkdir(target)
            else:
                os.close(os.open(target, os.O_CREAT))
            # Only what will be written to needs the box's user as its owner. Homes that are closed to others, in which
            # a Python may lie, can be reached here and now.
            if not (drop and name in ("base", "image")):
                kernel.attach(source, target)
            elif not kernel.attach_as(source, target, user):
                self.copied |= name == "base"
            os.close(source)
        if drop:
            self.step = "namespace"
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            kernel.prctl(4, 1)  # dumpable: else its own /proc files belong to root
            kernel.unshare(_SPACES)
            kernel.map_ids("self", 0, user, 0, user)
        try:
            kernel.unshare(kernel.NEWNET)
            self.network = True
        except OSError:
            pass  # the filter that lets no such socket be made takes its place
        if child := os.fork():
            os.close(self.channel)
            os.waitpid(child, 0)
            os._exit(0)
        kernel.prctl(1, kernel.SIGKILL)  # when the parent ends
        if self.network:
            self.step = "network"
            kernel.loop_up()

    def build(self) -> None:
        """The box's file system, its writable parts in memory."""
        ask = self.ask
        self.step = "proc"
        kernel.mount("proc", "/proc", "proc")
        self.step = "mount"
        kernel.mount("box", BOX, "tmpfs", _IN_MEMORY, "mode=755")
        for name in (ROOT, f"{BOX}/shm", f"{BOX}/none"):
            os.mkdir(name)
        for name, text in (("filter", ask["filters"][not self.network]), ("empty", "")):
            with open(f"{BOX}/{name}", "wb") as file:
                file.write(bytes.fromhex(text))
        if "image" in ask["sources"]:
            self.step = "overlay"
            self._overlay("image", ROOT)
            self.step = "mount"
        for name in ("proc", "dev", "tmp", "run", "root", "var", "testbed", "home/agent"):
            os.close(kernel.folder(f"/{name}"))
        os.chmod(_target("/tmp"), 0o1777)
        for path, target in ask["links"].items():
            os.symlink(target, f"{_target(os.path.dirname(path))}/{os.path.basename(path)}")
        for name, path in ask["binds"].items():
            target = f"{_target(os.path.dirname(path))}/{os.path.basename(path)}"
            if os.path.isdir(f"{PLACE}/{name}"):
                os.close(kernel.folder(path))
            else:
                os.close(os.open(target, os.O_CREAT))
            kernel.mount(f"{PLACE}/{name}", target, flags=kernel.BIND | kernel.REC)
        for path, text in ask["files"].items():
            kernel.write(path, text.encode())
        if not self.copied:
            try:
                self._overlay("base", _target("/testbed"))
            except OSError:
                self.copied = True
        if self.copied:
            self.step = "copy"
            os.mkdir(f"{BOX}/copy")
            kernel.mount(f"{BOX}/copy", _target("/testbed"), flags=kernel.BIND)
            copy = ["cp", "-r", "-P", "--preserve=mode,timestamps,links", f"{PLACE}/base/.", f"{BOX}/copy"]
            if failed := os.spawnve(os.P_WAIT, "/bin/cp", copy, {}):
                raise OSError(5, f"cp ended with {failed}")
        self.step = "mount"
        for path in ask["hidden"]:
            try:
                there = kernel.inside(path, os.O_PATH)
            except OSError:
                continue  # not there to be seen
            empty = f"{BOX}/none" if stat.S_ISDIR(os.fstat(there).st_mode) else f"{BOX}/empty"
            kernel.mount(empty, f"/proc/self/fd/{there}", flags=kernel.BIND)
        used = os.statvfs(BOX)
        size = (used.f_blocks - used.f_bfree) * used.f_frsize + ask["disk"]
        options = f"size={size},nr_inodes={used.f_files - used.f_ffree + ask['inodes']}"
        kernel.mount("box", BOX, "tmpfs", kernel.REMOUNT | _IN_MEMORY, options)

    def _overlay(self, lower: str, target: str) -> None:
        upper, work = f"{BOX}/{lower}.upper", f"{BOX}/{lower}.work"
        for name in (upper, work):
            os.mkdir(name)
        options = f"lowerdir={PLACE}/{lower},upperdir={upper},workdir={work},userxattr"
        kernel.mount("overlay", target, "overlay", options=options)

    def serve(self) -> None:
        """Answer until the worker has gone."""
        while True:
            asked, data = receive(self.channel)
            told: Header = {}
            answer = b""
            try:
                if asked["do"] == "run":
                    told, answer = run(self.ask, self.channel, asked, data)
                elif asked["do"] == "read":
                    answer = kernel.read(asked["path"])
                elif asked["do"] == "write":
                    kernel.write(asked["path"], data)
                else:
                    told = {"found": self._list()}
            except OSError as error:
                told = {"errno": error.errno or errno.EIO}
            send(self.channel, told, answer)

    def _list(self) -> Listing:
        folder = kernel.inside("/testbed", os.O_RDONLY | os.O_DIRECTORY)
        try:
            return listing(folder)
        finally:
            os.close(folder)


def _target(path: str) -> str:
    """A folder of the box as the target of a mount."""
    return f"/proc/self/fd/{kernel.folder(path)}"


def main() -> None:
    keeper = Keeper(os.dup(0))
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.umask(0o022)
    try:
        ask, _ = receive(keeper.channel)
        keeper.enter(ask)
        keeper.build()
        send(keeper.channel, {"network": keeper.network, "copied": keeper.copied})
        keeper.serve()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except OSError as error:
        send(keeper.channel, {"failed": keeper.step, "errno": error.errno or errno.EIO, "detail": str(error)})
