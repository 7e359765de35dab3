"""Secrets that stand in files: found once, read again each time they are asked for."""

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from syncd.config import values
from syncd.config.values import NotAllowed
from syncd.core.settings import Secret, Settings


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What relative names are relative to: the (absolute) folder of the YAML; for secrets, systemd's credentials before it."""

    folder: Path
    credentials: Path | None

    @classmethod
    def of(cls, file: Path, env: Mapping[str, str]) -> "Surroundings":
        credentials = env.get("CREDENTIALS_DIRECTORY")
        return cls(file.absolute().parent, Path(credentials) if credentials else None)

    def candidates(self, name: str) -> tuple[Path, ...]:
        """Where the secret file `name` may be, the first first; an absolute name is in one place only."""
        if Path(name).is_absolute():
            return (Path(name),)
        return tuple(folder / name for folder in (self.credentials, self.folder) if folder is not None)


@dataclass(frozen=True, slots=True)
class SecretFile:
    candidates: tuple[Path, ...]

    def __call__(self) -> str:
        """The text of the first candidate that exists, line ends at its end cut off.

        Raises OSError, naming the paths tried, when there is none or when it is unreadable, empty or not UTF-8: an unreadable
        one is not passed over, for the next might hold an outdated secret.
        """
        for path in self.candidates:
            try:
                text = path.read_text("utf-8").rstrip("\r\n")
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise OSError(f"cannot read the secret file {path}: {error.strerror or 'it is unreadable'}") from None
            except ValueError:
                raise OSError(f"cannot read the secret file {path}: its name or its text is not valid UTF-8") from None
            if not text:
                raise OSError(f"the secret file {path} is empty")
            return text
        raise FileNotFoundError(f"no secret file; tried {', '.join(map(str, self.candidates))}")

    def exposed(self) -> Path | None:
        """The file that is read, where every user of this machine can read it, too."""
        try:
            found = next((path for path in self.candidates if path.exists()), None)
            if found is None or not found.stat().st_mode & stat.S_IROTH:
                return None
            return found if all(folder.stat().st_mode & stat.S_IXOTH for folder in found.resolve().parents) else None
        except OSError:
            return None  # which is told when it is read


def exposed(settings: Settings) -> tuple[Path, ...]:
    """The files of secrets that every user of this machine can read, each once."""
    found = [settings.database.dsn, settings.http.token if settings.http is not None else None]
    for instance in settings.instances:
        if instance.rest is not None:
            found += [instance.rest.client_id, instance.rest.client_secret]
        if instance.soap is not None:
            found.append(instance.soap.encryption_key)
    files = [secret.reader for secret in found if secret is not None]
    paths = [file.exposed() for file in files if isinstance(file, SecretFile)]
    return tuple(dict.fromkeys(path for path in paths if path is not None))


def secret(given: object, around: Surroundings) -> Secret:
    """The secret written as a text or as `{file: NAME}`; a file is read once to see that it can be. Raises ValueError."""
    if isinstance(given, str) and given:
        return Secret(given)
    if given == "":
        raise ValueError("is empty; give a text or {file: NAME}")
    if not isinstance(given, dict) or set(given) != {"file"} or not isinstance(given["file"], str) or not given["file"]:
        raise ValueError("needs a text or {file: NAME}")
    found = Secret(SecretFile(around.candidates(given["file"])))
    reveal(found)
    return found


def dsn(given: object, around: Surroundings) -> Secret:
    found = secret(given, around)
    if not reveal(found).startswith(("postgresql://", "postgres://")):
        raise ValueError("needs a URL of the form postgresql://user:password@host:5432/database")
    return found


def reveal(secret: Secret) -> str:
    try:
        return secret.reveal()
    except OSError as error:
        raise ValueError(str(error)) from None


def folder(text: str, around: Surroundings) -> Path:
    """A path, if relative then to the folder of the YAML."""
    if not text or "\0" in text:
        raise NotAllowed("the path of a folder")
    return around.folder / text


def readable_file(text: str, around: Surroundings) -> Path:
    path = around.folder / text
    try:
        with path.open("rb"):
            return path
    except (OSError, ValueError):
        raise NotAllowed(f"a file that can be read, if relative then in {around.folder}") from None


def later_file(text: str, around: Surroundings) -> Path:
    """The path of a file that is read while syncd runs. It is not looked at here: whoever replaces it may be about to, and while
    it is missing, all that does not need it goes on."""
    return around.folder / values.text(text)
