# SPDX-License-Identifier: GPL-2.0-or-later
"""The first process of one lab host: makes the host's namespaces, starts its services, buries its dead.

Run as a program of its own (`python -I -S host_init.py < SPEC`), standard library only. It reads one JSON object from
standard input, leaves one process behind and ends when the host stands (status 0) or could not be made (1, with
the reason on standard error). The process that stays is process 1 of the host's own PID namespace: whoever kills it
kills everything in the host, and network, mounts and names go with it. That is how a lab leaves nothing behind.

SPEC: name, directory (of this host, in the lab's state), keep (paths that must stay visible), sysctl, files
(`[path, mode, text]`), folders, remove. In `directory` it makes `pid` (who it is, seen from outside), `control` (Unix
socket, root only), `run/` (the host's /run) and `log/SERVICE.log`.
"""

import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from types import FrameType
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x04000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
COVERED = ("/tmp", "/run", "/var/lib")

Spec = Mapping[str, Any]
Answer = dict[str, Any]

libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """mount(2); OSError names the target."""
    encoded = [None if each is None else os.fsencode(each) for each in (source, target, kind, data)]
    _check(
        libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]), f"mount {target}"
    )


# --- making the host -------------------------------------------------------------------------------------------------


def record_identity(directory: str) -> None:
    """Write down who we are seen from outside; process numbers are recycled, so the start time goes with it."""
    outer = os.readlink("/proc/self")
    with open("/proc/self/stat") as stat:
        start = int(stat.read().rpartition(")")[2].split()[19])
    with open("/proc/sys/kernel/random/boot_id") as boot:
        record = {"pid": int(outer), "start": start, "boot": boot.read().strip()}
    temporary = os.path.join(directory, "pid.new")
    with open(temporary, "w") as file:
        json.dump(record, file)
    os.rename(temporary, os.path.join(directory, "pid"))


def make_private_etc() -> None:
    """Cover /etc by a layer of our own, so that nothing written here reaches the machine; a copy if overlays fail."""
    mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    for folder in ("/tmp/upper", "/tmp/work"):
        os.mkdir(folder, 0o755)
    try:
        mount("overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir=/tmp/upper,workdir=/tmp/work")
    except OSError:
        shutil.copytree("/etc", "/tmp/etc", symlinks=True, ignore_dangling_symlinks=True)
        mount("/tmp/etc", "/etc", None, MS_BIND)


def make_mounts(spec: Spec) -> None:
    """Give the host its own /etc, /tmp, /run, /var/lib, /proc and /sys, and keep what must stay visible below them."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    keep = [
        (path, os.open(path, os.O_PATH | os.O_DIRECTORY))
        for path in spec["keep"]
        if any(path == top or path.startswith(top + "/") for top in COVERED)
    ]
    run = os.open(os.path.join(spec["directory"], "run"), os.O_PATH | os.O_DIRECTORY)
    make_private_etc()
    mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    mount("tmpfs", "/var/lib", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    mount(f"/proc/self/fd/{run}", "/run", None, MS_BIND)
    os.close(run)
    for path, descriptor in keep:
        os.makedirs(path, exist_ok=True)
        mount(f"/proc/self/fd/{descriptor}", path, None, MS_BIND | MS_REC)
        os.close(descriptor)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def make_files(spec: Spec) -> None:
    """Write the host's configuration: what is asked for, and names and resolver as plain files."""
    for path in spec["remove"]:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)
    for folder in spec["folders"]:
        os.makedirs(folder, exist_ok=True)
    for path, mode, text in spec["files"]:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.lexists(path):
            os.unlink(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        os.chmod(path, mode)
    for key, value in spec["sysctl"].items():
        path = "/proc/sys/" + key
        if os.path.exists(path):
            with open(path, "w") as file:
                file.write(value)


# --- the life of the host --------------------------------------------------------------------------------------------


class Service:
    """One program that runs in the host, its output on the way to its log."""

    def __init__(self, name: str, pid: int, pipe: int, log: int) -> None:
        self.name, self.pid, self.pipe, self.log = name, pid, pipe, log
        self.status: int | None = None
        self.rest = b""
        self.ready = False  # whether it said so, where it was asked to (sd_notify(3))
        self.revival: float | None = None  # when it is to be started again, CLOCK_MONOTONIC seconds
        self.again: dict[str, Any] = {}  # how it was started

    def pump(self) -> bool:
        """Copy what has been said to the log, each line with the time; False at the end."""
        try:
            data = os.read(self.pipe, 65536)
        except BlockingIOError:
            return True
        *lines, self.rest = (self.rest + data).split(b"\n")
        if not data and self.rest:
            lines, self.rest = [self.rest], b""
        now = time.time()
        stamp = time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now * 1000) % 1000:03d} "
        os.write(self.log, b"".join(stamp.encode() + line + b"\n" for line in lines))
        return bool(data)


def _heard(number: int, frame: FrameType | None) -> None:
    """A child has ended: the wake-up descriptor says so."""


class Init:
    """Process 1: a loop over the control socket, the services' output and the children's ends."""

    def __init__(self, directory: int, control: socket.socket) -> None:
        self.directory = directory  # descriptor; the path may be covered by now
        self.selector = selectors.DefaultSelector()
        self.services: dict[str, Service] = {}
        self.waiting: list[tuple[Service, socket.socket, float]] = []  # (service, connection, moment to kill)
        self.connections: dict[socket.socket, bytes] = {}
        self.words: dict[str, socket.socket] = {}  # where a service says that it is ready
        wake, wakeup = socket.socketpair()
        for end in (wake, wakeup):
            end.setblocking(False)
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        self.wakeup = wakeup
        signal.signal(signal.SIGCHLD, _heard)
        self.selector.register(wake, selectors.EVENT_READ, lambda: self.bury(wake))
        self.selector.register(control, selectors.EVENT_READ, lambda: self.accept(control))

    def run(self) -> None:
        """Serve for ever; the end of this process is the end of the host."""
        while True:
            revivals = [each.revival for each in self.services.values() if each.revival is not None]
            deadline = min([*revivals, *(moment for _, _, moment in self.waiting)], default=None)
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            for key, _ in self.selector.select(timeout):
                key.data()
            for service, _, moment in self.waiting:
                if moment <= time.monotonic():
                    self.signal(service, signal.SIGKILL)
            for service in list(self.services.values()):
                if service.revival is not None and service.revival <= time.monotonic():
                    self.start(service.name, **service.again)

    def accept(self, control: socket.socket) -> None:
        connection, _ = control.accept()
        self.connections[connection] = b""
        self.selector.register(connection, selectors.EVENT_READ, lambda: self.hear(connection))

    def hear(self, connection: socket.socket) -> None:
        data = connection.recv(65536)
        self.connections[connection] += data
        if not data or b"\n" in self.connections[connection]:
            self.selector.unregister(connection)
            text = self.connections.pop(connection)
            if not data:
                connection.close()
                return
            try:
                request = json.loads(text)
                answer = getattr(self, "do_" + request.pop("do"))(connection, **request)
            except Exception as error:  # a bad request must not take the host down
                answer = {"error": f"{type(error).__name__}: {error}"}
            if answer is not None:
                self.answer(connection, answer)

    def answer(self, connection: socket.socket, value: Answer) -> None:
        try:
            connection.sendall(json.dumps(value).encode() + b"\n")
        except OSError:
            pass
        connection.close()

    def do_start(
        self,
        _connection: socket.socket,
        name: str,
        argv: list[str],
        environment: dict[str, str],
        notify: bool = False,
        revive_after: float | None = None,
    ) -> Answer:
        """Start a program as a service of that name; its output goes through a pipe of ours into log/NAME.log.

        `notify`: it is told where to say that it is ready. `revive_after`: when it fails it is started again, after
        so many seconds.
        """
        old = self.services.get(name)
        if old is not None and old.status is None:
            return {"error": f"{name} runs already"}
        return self.start(name, argv, environment, notify=notify, revive_after=revive_after)

    def start(
        self,
        name: str,
        argv: list[str],
        environment: dict[str, str],
        *,
        notify: bool = False,
        revive_after: float | None = None,
    ) -> Answer:
        """The output goes by a pipe: a confined program may not hold a file that its profile omits, as our log is."""
        told = dict(environment)
        if notify:
            told["NOTIFY_SOCKET"] = self.hear_words_of(name)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        log = os.open(f"log/{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644, dir_fd=self.directory)
        try:
            pid = os.posix_spawnp(
                argv[0],
                argv,
                {**os.environ, **told},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, writer, 1),
                    (os.POSIX_SPAWN_DUP2, writer, 2),
                ],
                setsid=True,
                setsigdef=[signal.SIGPIPE, signal.SIGCHLD, signal.SIGINT],
            )
        except OSError as error:
            os.close(reader)
            os.close(log)
            return {"error": f"{argv[0]}: {error.strerror}"}
        finally:
            os.close(writer)
        service = self.services[name] = Service(name, pid, reader, log)
        service.again = {
            "argv": argv,
            "environment": environment,
            "notify": notify,
            "revive_after": revive_after,
        }
        self.selector.register(reader, selectors.EVENT_READ, lambda: self.pump(service))
        return {"pid": pid}

    def hear_words_of(self, name: str) -> str:
        """The name of a socket for a service's words: an abstract one, which ends with us and lies in no folder."""
        place = f"homeward-lab/notify/{name}"
        if name not in self.words:
            ear = self.words[name] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            ear.bind("\0" + place)
            self.selector.register(ear, selectors.EVENT_READ, lambda: self.hear_word(name, ear))
        return "@" + place

    def hear_word(self, name: str, ear: socket.socket) -> None:
        word = ear.recv(4096)
        if name in self.services and b"READY=1" in word.split(b"\n"):
            self.services[name].ready = True

    def do_stop(self, connection: socket.socket, name: str, number: int, grace: float) -> Answer | None:
        """End a service by a signal, by SIGKILL after `grace` seconds; the answer comes when it has ended."""
        service = self.services.get(name)
        if service is None or service.status is not None:
            if service is not None:
                service.revival = None
            return {"status": None if service is None else service.status}
        self.signal(service, number)
        self.waiting.append((service, connection, time.monotonic() + grace))
        return None

    def do_services(self, _connection: socket.socket) -> Answer:
        """Every service that was started here: its process number inside, its exit status, null while it runs."""
        return {
            name: {"pid": each.pid, "status": each.status, "ready": each.ready}
            for name, each in self.services.items()
        }

    def signal(self, service: Service, number: int) -> None:
        try:
            os.kill(service.pid, number)
        except ProcessLookupError:
            pass

    def pump(self, service: Service) -> None:
        if not service.pump():
            self.selector.unregister(service.pipe)
            os.close(service.pipe)
            os.close(service.log)

    def bury(self, wake: socket.socket) -> None:
        try:
            wake.recv(4096)
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for service in self.services.values():
                if service.pid == pid and service.status is None:
                    self.ended(service, os.waitstatus_to_exitcode(status))

    def ended(self, service: Service, status: int) -> None:
        service.status, service.ready = status, False
        stopped = [each for each in self.waiting if each[0] is service]
        if stopped:
            # Its helpers go with it, as they would with systemd: it was started as the leader of a group of its own.
            try:
                os.killpg(service.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        clean = (0, *(-each for each in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)))
        if not stopped and status not in clean and service.again["revive_after"] is not None:
            service.revival = time.monotonic() + service.again["revive_after"]
        for entry in stopped:
            self.waiting.remove(entry)
            self.answer(entry[1], {"status": status})


def become_host(spec: Spec, ready: int) -> None:
    """Everything process 1 does; never returns."""
    os.setsid()
    record_identity(spec["directory"])
    directory = os.open(spec["directory"], os.O_RDONLY | os.O_DIRECTORY)
    socket.sethostname(spec["name"])
    make_mounts(spec)
    make_files(spec)
    os.fchdir(directory)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.umask(0o177)
    control.bind("control")
    os.umask(0o022)
    control.listen(16)
    own_log = os.open("log/init.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.chdir("/")
    init = Init(directory, control)
    os.write(ready, b"ok")
    os.close(ready)
    null = os.open("/dev/null", os.O_RDONLY)
    for old, new in ((null, 0), (own_log, 1), (own_log, 2)):
        os.dup2(old, new)
    init.run()


def main() -> int:
    """Make the namespaces, leave process 1 in them, wait until it says that the host stands."""
    spec = json.load(sys.stdin)
    _check(libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWNET), "unshare")
    listen, ready = os.pipe2(os.O_CLOEXEC)
    if os.fork() == 0:
        os.close(listen)
        try:
            become_host(spec, ready)
        except BaseException:  # reported to whoever waits, or to the host's own log
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(ready)
    return 0 if os.read(listen, 2) == b"ok" else 1


if __name__ == "__main__":
    sys.exit(main())
