"""Secrets: from texts, variables and files; read anew at each use; never shown."""

import contextlib
import os
import pwd
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.cli.failures import explain
from syncd.config import ConfigErrors, exposed, load
from syncd.core.settings import Secret

from .conftest import Load, Problems, document

KEY = "instances.acme.soap.encryption_key"


def key_of(loaded: Load, name: str, **env: str) -> Secret:
    soap = loaded(document({KEY: {"file": name}}), **env).instances[0].soap
    assert soap is not None
    return soap.encryption_key


def test_beside_the_yaml(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("beside\n")
    assert key_of(loaded, "key").reveal() == "beside"


def test_beside_the_yaml_wherever_we_are_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("beside")
    (tmp_path / "syncd.yaml").write_text(document({KEY: {"file": "key"}}))
    monkeypatch.chdir(tmp_path)
    soap = load(Path("syncd.yaml"), {}).instances[0].soap
    monkeypatch.chdir("/")
    assert soap is not None
    assert soap.encryption_key.reveal() == "beside"


def test_the_credentials_directory_comes_first(loaded: Load, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (tmp_path / "key").write_text("beside")
    key = key_of(loaded, "key", CREDENTIALS_DIRECTORY=str(credentials))
    assert key.reveal() == "beside"
    (credentials / "key").write_text("credential")
    assert key.reveal() == "credential"


def test_an_absolute_name(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "key").write_text("absolute")
    assert key_of(loaded, str(tmp_path / "elsewhere" / "key"), CREDENTIALS_DIRECTORY=str(tmp_path)).reveal() == "absolute"


def test_rotation_is_seen(loaded: Load, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("old\n")
    key = key_of(loaded, "key")
    assert key.reveal() == "old"
    file.write_text("new\r\n")
    assert key.reveal() == "new"
    file.unlink()
    with pytest.raises(OSError, match="no secret file; tried "):
        key.reveal()


def test_only_line_ends_at_the_end_are_stripped(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(" a b \n")
    assert key_of(loaded, "key").reveal() == " a b "


def test_wherever_a_secret_is_allowed(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgresql://elsewhere\n")
    (tmp_path / "text").write_text("from a file\n")
    paths = ("rest.client_id", "rest.client_secret", "soap.user_id", "soap.encryption_key")
    changes = {f"instances.acme.{path}": {"file": "text"} for path in paths}
    result = loaded(document({**changes, "database.dsn": {"file": "dsn"}}))
    assert result.database.dsn is not None
    assert result.database.dsn.reveal() == "postgresql://elsewhere"
    rest, soap = result.instances[0].rest, result.instances[0].soap
    assert rest is not None
    assert soap is not None
    found = rest.client_id.reveal(), rest.client_secret.reveal(), soap.user_id, soap.encryption_key.reveal()
    assert found == ("from a file",) * 4


def test_a_missing_file_names_the_paths_tried(problems: Problems, tmp_path: Path) -> None:
    (problem,) = problems(document({KEY: {"file": "key"}}), CREDENTIALS_DIRECTORY="/run/credentials")
    assert problem.path == KEY
    assert problem.message == f"no secret file; tried /run/credentials/key, {tmp_path}/key"


def test_a_file_that_does_not_serve(problems: Problems, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff")
    text = document(
        {
            "instances.acme.rest.client_id": {"file": "empty"},
            "instances.acme.rest.client_secret": {"file": "folder"},
            KEY: {"file": "binary"},
            "instances.acme.soap.user_id": {"file": "nul\0"},
        }
    )
    assert {problem.path.rpartition(".")[2]: problem.message for problem in problems(text)} == {
        "client_id": f"the secret file {tmp_path}/empty is empty",
        "client_secret": f"cannot read the secret file {tmp_path}/folder: Is a directory",
        "encryption_key": f"cannot read the secret file {tmp_path}/binary: its name or its text is not valid UTF-8",
        "user_id": f"cannot read the secret file {tmp_path}/nul\\x00: its name or its text is not valid UTF-8",
    }


def test_an_unreadable_credential_is_not_passed_over(problems: Problems, tmp_path: Path) -> None:
    (tmp_path / "credentials" / "key").mkdir(parents=True)
    (tmp_path / "key").write_text("outdated")
    (problem,) = problems(document({KEY: {"file": "key"}}), CREDENTIALS_DIRECTORY=str(tmp_path / "credentials"))
    assert problem.message == f"cannot read the secret file {tmp_path}/credentials/key: Is a directory"


@contextlib.contextmanager
def as_an_ordinary_user() -> Iterator[None]:
    """Root may read anything."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """One that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="syncd-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_file_that_syncd_may_not_read_is_one_line_and_78(public_folder: Path) -> None:
    (public_folder / "key").write_text("key")
    (public_folder / "key").chmod(0)
    (public_folder / "syncd.yaml").write_text(document({KEY: {"file": "key"}}))
    with as_an_ordinary_user(), pytest.raises(ConfigErrors) as caught:
        load(public_folder / "syncd.yaml", {})
    explained = explain(caught.value)
    assert explained is not None
    line, code = explained
    assert (code, line.count("\n")) == (78, 0)
    assert line.endswith(f": {KEY}: cannot read the secret file {public_folder}/key: Permission denied")


@pytest.mark.parametrize(("of_file", "of_folder", "told"), [(0o644, 0o755, True), (0o640, 0o755, False), (0o644, 0o750, False)])
def test_a_file_that_every_user_can_read_is_told(public_folder: Path, of_file: int, of_folder: int, told: bool) -> None:
    (public_folder / "key").write_text("key")
    (public_folder / "key").chmod(of_file)
    public_folder.chmod(of_folder)
    (public_folder / "syncd.yaml").write_text(document({KEY: {"file": "key"}, "instances.acme.rest.client_id": {"file": "key"}}))
    assert exposed(load(public_folder / "syncd.yaml", {})) == ((public_folder / "key",) if told else ())


def test_a_credential_that_hides_it_is_the_one_that_counts(public_folder: Path, tmp_path: Path) -> None:
    (public_folder / "key").write_text("key")
    (public_folder / "key").chmod(0o644)
    (tmp_path / "key").write_text("credential")
    (tmp_path / "key").chmod(0o400)
    (public_folder / "syncd.yaml").write_text(document({KEY: {"file": "key"}}))
    assert exposed(load(public_folder / "syncd.yaml", {"CREDENTIALS_DIRECTORY": str(tmp_path)})) == ()


HIDDEN = "hunter2"
MISTAKES = [
    document({"database.dsn": HIDDEN}),
    document({"database.dsn": [HIDDEN]}),
    document({KEY: {HIDDEN: None}}),
    document({KEY: {"file": "absent", "value": HIDDEN}}),
    document({KEY: [HIDDEN]}),
    document({"instances.acme.rest": HIDDEN}),
    document({"instances.acme.rest.client_secrt": HIDDEN}),
    document({"instances.acme.rest.endpoint": f"https://user:{HIDDEN}@example.com"}),
    document({"instances.acme.soap.endpoint": "${HIDDEN}"}),
    document({"instances.acme.network.proxy": f"user:{HIDDEN}@proxy"}),
    document({"instances.acme.network.proxy": HIDDEN}),
    document({"instances.acme.limits.concurrency": "${HIDDEN}"}),
    document({"instances.acme.pulls.people.every": "x${HIDDEN}"}),
    document({"database.dsn": "${" + HIDDEN + "-}"}),
    document({KEY: "MARK"}).replace("MARK", f"*{HIDDEN}"),
    document({KEY: "MARK"}).replace("MARK", f"!{HIDDEN} x"),
    document({KEY: "MARK"}).replace("MARK", f"!a!{HIDDEN} x"),
    document({KEY: "MARK"}).replace("MARK", f"&{HIDDEN} a\nb: &{HIDDEN} x"),
    document({KEY: "MARK"}).replace("MARK", f"&{HIDDEN}*"),
    document({KEY: "MARK"}).replace("MARK", f"%{HIDDEN}"),
    document({KEY: "MARK"}).replace("MARK", f'"{HIDDEN}'),
    document({KEY: "MARK"}).replace("MARK", f"{HIDDEN}: x"),
    document({KEY: "MARK"}).replace("MARK", f"[{HIDDEN}"),
    document({KEY: "MARK"}).replace("MARK", f"| {HIDDEN}"),
]


@pytest.mark.parametrize("text", MISTAKES)
def test_no_mistake_shows_a_secret(text: str, tmp_path: Path) -> None:
    file = tmp_path / "syncd.yaml"
    file.write_text(text)
    with pytest.raises(ConfigErrors) as caught:
        load(file, {"HIDDEN": HIDDEN})
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert HIDDEN not in shown
    assert caught.value.__context__ is None


def test_no_repr_shows_a_secret(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(HIDDEN)
    text = document(
        {
            "database.dsn": f"postgresql://u:{HIDDEN}@localhost",
            "instances.acme.rest.client_id": HIDDEN,
            "instances.acme.rest.client_secret": "${HIDDEN}",
            "instances.acme.network.proxy": f"http://u:{HIDDEN}@proxy",
            KEY: {"file": "key"},
        }
    )
    assert HIDDEN not in repr(loaded(text, HIDDEN=HIDDEN))
