"""What each key may hold, and the rules that tie keys together."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from syncd.core import settings
from syncd.core.settings import Http, Instance

from .conftest import Load, Problems, document

LIMITS = "instances.acme.limits."
PULL = "instances.acme.pulls.people."
PUSH = "instances.acme.pushes.contacts."
REST = "instances.acme.rest."
SOAP = "instances.acme.soap."
NETWORK = "instances.acme.network."

REFUSED = [
    (LIMITS + "calls_per_20s", 5, "5 is not allowed; between 6 and 100: "),
    (LIMITS + "calls_per_20s", 101, "101 is not allowed; between 6 and 100: "),
    (LIMITS + "calls_per_20s", "many", "many is not allowed; between 6 and 100: "),
    (LIMITS + "calls_per_20s", 50.5, "50.5 is not allowed; between 6 and 100: "),
    (LIMITS + "calls_per_20s", None, "null is not allowed; a whole number"),
    (LIMITS + "calls_per_20s", [50], "a list is not allowed; a whole number"),
    (LIMITS + "concurrency", 11, "11 is not allowed; between 1 and 10: "),
    (LIMITS + "daily_calls", 99, "99 is not allowed; a whole number, 100 or more"),
    (LIMITS + "import_slots", 0, "0 is not allowed; between 1 and 10: "),
    (LIMITS + "import_slots", 11, "11 is not allowed; between 1 and 10: "),
    (LIMITS + "import_running", 3, "3 is not allowed; between 1 and 2: "),
    (PULL + "source", "rest", "rest is not allowed; soap, bulk_extract, activities or auto"),
    (PULL + "source", None, "null is not allowed; soap, bulk_extract, activities or auto"),
    (LIMITS + "export_slots", 11, "11 is not allowed; between 1 and 10: "),
    (LIMITS + "export_running", 3, "3 is not allowed; between 1 and 2: "),
    (LIMITS + "export_daily_bytes", "999kB", "999kB is not allowed; between 1,000,000 and "),
    ("instances.acme.census", "23h", "23h is not allowed; between 1d and 365d"),
    ("instances.acme.keep.outcomes", "3651d", "3651d is not allowed; between 7d and 3650d"),
    ("instances.acme.keep.payloads", "23h", "23h is not allowed; between 1d and 3650d"),
    ("instances.acme.keep.payloads", "401d", "401d is not allowed; at most instances.acme.keep.outcomes, which is 400d"),
    ("instances.acme.keep", None, "needs a mapping (key: value), not null; "),
    (PULL + "batch_size", 0, "0 is not allowed; between 1 and 1,000: "),
    (PULL + "batch_size", 1001, "1001 is not allowed; between 1 and 1,000: "),
    (PULL + "streams", 9, "9 is not allowed; between 1 and 8"),
    (PULL + "streams", 6, "6 is not allowed; at most 5, for instances.acme.limits.concurrency lets no more calls go at once"),
    (PULL + "window", "59s", "59s is not allowed; between 1m and 30d: "),
    (PULL + "window", "721h", "721h is not allowed; between 1m and 30d: "),
    (PULL + "overlap", "-1s", "-1s is not allowed; a duration is written like "),
    (PULL + "margin", "-1s", "-1s is not allowed; a duration is written like "),
    (PULL + "every", "999ms", "999ms is not allowed; between 1s and 365d"),
    (PULL + "every", 300, "300 is not allowed; a plain number does not tell its unit; "),
    (PULL + "select.updated_since", "Beginning", "Beginning is not allowed; a time is written like "),
    (PULL + "select.updated_since", ["beginning"], "a list is not allowed; a time such as 2016-01-01T00:00:00Z"),
    (PULL + "select", None, "needs a mapping (key: value), not null; "),
    (PULL + "select.updated_since", "0216-01-01", "0216-01-01 is not allowed; a time not before 2000-01-01: "),
    (PULL + "fields", "FirstName", "needs a list such as [FirstName, LastName], or a mapping such as {first_name: FirstName}"),
    (PULL + "fields", None, "needs a list such as [FirstName, LastName], or a mapping such as {first_name: FirstName}"),
    (PULL + "fields", ["a", "b", "a"], "names a field more than once"),
    (PULL + "where", ["Country"], "needs a mapping (key: value), not a list; "),
    (PULL + "where.Country", {"is": "DE"}, "a mapping is not allowed; a text or a list of texts"),
    (PULL + "where.Country", [], "needs at least one value; '' stands for none"),
    (PULL + "where.Country", "D\0E", "D\\x00E is not allowed; a text without control characters"),
    (LIMITS + "subscription_calls", 999, "999 is not allowed; a whole number, 1,000 or more"),
    (LIMITS + "subscription_calls", [], "a list is not allowed; a whole number or null"),
    (LIMITS + "urgent_reserve", -1, "-1 is not allowed; a whole number, 0 or more"),
    (LIMITS + "urgent_reserve", None, "null is not allowed; a whole number"),
    ("instances.acme.history", "23h", "23h is not allowed; between 1d and 3650d"),
    ("instances.acme.history", "3651d", "3651d is not allowed; between 1d and 3650d"),
    ("instances.acme.history", 90, "90 is not allowed; a plain number does not tell its unit; "),
    ("instances.acme.history", [], "a list is not allowed; a duration such as "),
    (PUSH + "max_body_bytes", 999, "999 is not allowed; between 1,000 and 9,999,999 bytes: "),
    (PUSH + "max_body_bytes", "10MB", "10MB is not allowed; between 1,000 and 9,999,999 bytes: "),
    (PUSH + "max_body_bytes", "9.9mb", "9.9mb is not allowed; a size is a whole number of bytes, "),
    (PUSH + "flush_after", "soon", "soon is not allowed; a duration is written like "),
    (PUSH + "unconfirmed_after", "59s", "59s is not allowed; between 1m and 365d"),
    (PUSH + "poll.min", "999ms", "999ms is not allowed; between 1s and 10m"),
    (PUSH + "poll.max", "11m", "11m is not allowed; between 1s and 10m"),
    (PUSH + "poll.min", "31s", "31s is not allowed; at most poll.max, which is 30s"),
    (PUSH + "lookup_field", " ", "  is not allowed; a text that is not empty"),
    (PUSH + "lookup_field", "a\0", "a\\x00 is not allowed; a text without control characters"),
    (PUSH + "format", "xlsx", "xlsx is not allowed; csv, tsv or ssv"),
    (PUSH + "list_id", 0, "0 is not allowed; a whole number, 1 or more"),
    (PUSH + "list_id", "Program.List", "Program.List is not allowed; a whole number, 1 or more"),
    (PUSH + "partition", "", '"" is not allowed; a text that is not empty'),
    (REST + "endpoint", "rest.example.com", "rest.example.com is not allowed; a URL such as "),
    (REST + "endpoint", "ftp://example.com", "ftp://example.com is not allowed; a URL such as "),
    (REST + "endpoint", "https://[::1", "https://[::1 is not allowed; a URL such as "),
    (REST + "endpoint", "https://example.com:99999", "https://example.com:99999 is not allowed; a URL such as "),
    (
        REST + "endpoint",
        "https://example.com/rest/",
        "https://example.com/rest/ is not allowed; Marketo shows the URL with /rest ",
    ),
    (
        REST + "endpoint",
        "https://example.com/identity",
        "https://example.com/identity is not allowed; Marketo shows the URL with ",
    ),
    (
        REST + "identity",
        "https://example.com?a=b",
        "https://example.com?a=b is not allowed; a URL without anything from ? or # on",
    ),
    (
        SOAP + "endpoint",
        "https://example.com/3_1?WSDL",
        "https://example.com/3_1?WSDL is not allowed; a URL without anything from ",
    ),
    (SOAP + "encryption_key", "", "is empty; give a text or {file: NAME}"),
    (SOAP + "encryption_key", None, "needs a text or {file: NAME}"),
    (SOAP + "encryption_key", {"file": "a", "env": "b"}, "needs a text or {file: NAME}"),
    (NETWORK + "proxy", "proxy.example.com:3128", "the value is not allowed; the URL of an HTTP proxy, such as "),
    (NETWORK + "timeout", "0s", "0s is not allowed; between 1s and 10m"),
    (NETWORK + "ca_file", "absent.pem", "absent.pem is not allowed; a file that can be read, if relative then in "),
    ("database.dsn", "host=localhost", "needs a URL of the form postgresql://user:password@host:5432/database"),
    ("database.dsn", "", "is empty; give a text or {file: NAME}"),
    ("http.listen", "0.0.0.0:9464", "0.0.0.0 is not loopback: others could read the page; give http.token, too"),
    ("http.listen", "example.com:9464", "example.com is not loopback: others could read the page; give http.token, too"),
    ("http.token", "", "is empty; give a text or {file: NAME}"),
    ("http.listen", "127.0.0.1", "127.0.0.1 is not allowed; an address and a port, such as "),
    ("http.listen", "127.0.0.1:65536", "127.0.0.1:65536 is not allowed; an address and a port, such as "),
    ("http.listen", "::1:9464", "::1:9464 is not allowed; an address and a port, such as "),
    ("logging.level", "trace", "trace is not allowed; debug, info, warning or error"),
    ("logging.format", "xml", "xml is not allowed; json, logfmt or console"),
    ("logging.metrics_every", "0s", "0s is not allowed; between 1s and 365d"),
    ("database", "postgres", "needs a mapping (key: value), not a text; {} is one without keys"),
    ("instances.acme.pulls", [], "needs a mapping (key: value), not a list; {} is one without keys"),
    ("instances.acme.pushes.contacts", None, "needs a mapping (key: value), not null; {} is one without keys"),
    ("instances", {}, "needs at least one instance"),
    ("defaults", "none", "needs a mapping (key: value), not a text; {} is one without keys"),
]


@pytest.mark.parametrize(("path", "value", "message"), REFUSED)
def test_refused_with_what_is_allowed(path: str, value: Any, message: str, problems: Problems) -> None:
    (problem,) = problems(document({path: value}))
    assert problem.path == path
    assert problem.message.startswith(message)


NO_NAMES = ["Acme", "1st", "a-b", "a.b", "", "a" * 64, "é", "[key]"]
NAME = "a name is 1 to 63 of a-z, 0-9 and _, beginning with a letter"
INSTANCE_NAME = "an instance's name is 1 to 40 of a-z, 0-9 and _, beginning with a letter, for tables are named after it"
TAKEN_NAME = "history and names that begin with history_ are taken: syncd.lead_history is a table of its own"


@pytest.mark.parametrize(
    ("section", "name", "message"),
    [
        *(("instances.acme.pulls", name, NAME) for name in NO_NAMES),
        *(("instances.acme.pushes", name, NAME) for name in NO_NAMES),
        *(("instances", name, INSTANCE_NAME) for name in [*NO_NAMES, "a" * 41]),
        *(("instances", name, TAKEN_NAME) for name in ["history", "history_", "history_i_acme"]),
    ],
)
def test_names(section: str, name: str, message: str, problems: Problems) -> None:
    content = yaml.safe_load(document({}))
    entries = content
    for part in section.split("."):
        entries = entries[part]
    (entry,) = entries.values()
    entries[name] = entry
    (problem,) = problems(yaml.dump(content, Dumper=_NoAliases))
    assert problem.path.startswith(section)
    assert problem.message.endswith(f" is not allowed; {message}")


@pytest.mark.parametrize("name", ["a" * 40, "historical", "my_history", "historya_"])
def test_names_of_instances(name: str, loaded: Load) -> None:
    content = yaml.safe_load(document({}))
    content["instances"] = {name: content["instances"]["acme"]}
    assert loaded(yaml.safe_dump(content)).instances[0].name == name


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


@pytest.mark.parametrize(
    ("path", "value", "read", "expected"),
    [
        (LIMITS + "calls_per_20s", 6, lambda i: i.limits.calls_per_20s, 6),
        (LIMITS + "calls_per_20s", "100", lambda i: i.limits.calls_per_20s, 100),
        (LIMITS + "daily_calls", "1_000_000", lambda i: i.limits.daily_calls, 1_000_000),
        (LIMITS + "subscription_calls", 1000000, lambda i: i.limits.subscription_calls, 1_000_000),
        (LIMITS + "subscription_calls", "1001", lambda i: i.limits.subscription_calls, 1001),
        (LIMITS + "subscription_calls", None, lambda i: i.limits.subscription_calls, None),
        (LIMITS + "urgent_reserve", 0, lambda i: i.limits.urgent_reserve, 0),
        (LIMITS + "urgent_reserve", 5_000_000, lambda i: i.limits.urgent_reserve, 5_000_000),
        ("instances.acme.history", "1d", lambda i: i.history, timedelta(days=1)),
        ("instances.acme.history", "3650d", lambda i: i.history, timedelta(days=3650)),
        ("instances.acme.history", None, lambda i: i.history, None),
        ("instances.acme.keep", {"outcomes": "3650d"}, lambda i: i.keep, settings.Keep(timedelta(days=3650), timedelta(days=30))),
        ("instances.acme.keep.payloads", "400d", lambda i: i.keep, settings.Keep(payloads=timedelta(days=400))),
        (LIMITS + "import_running", 1, lambda i: i.limits.import_running, 1),
        (PULL + "streams", 5, lambda i: i.pulls[0].streams, 5),
        (PULL + "window", "30d", lambda i: i.pulls[0].window, timedelta(days=30)),
        (PULL + "window", "60000ms", lambda i: i.pulls[0].window, timedelta(minutes=1)),
        (PULL + "overlap", "0s", lambda i: i.pulls[0].overlap, timedelta()),
        (PULL + "fields", ["Company", "No", 7], lambda i: i.pulls[0].fields, ("Company", "No", "7")),
        (PULL + "fields", [], lambda i: i.pulls[0].fields, ()),
        (PUSH + "max_body_bytes", "9.9MB", lambda i: i.pushes[0].max_body_bytes, 9_900_000),
        (PUSH + "max_body_bytes", 9_999_999, lambda i: i.pushes[0].max_body_bytes, 9_999_999),
        (PUSH + "flush_after", "0s", lambda i: i.pushes[0].flush_after, timedelta()),
        (PUSH + "unconfirmed_after", "1m", lambda i: i.pushes[0].unconfirmed_after, timedelta(minutes=1)),
        (PUSH + "poll.min", "30s", lambda i: i.pushes[0].poll.min, timedelta(seconds=30)),
        (PUSH + "format", "ssv", lambda i: i.pushes[0].format, "ssv"),
        (PUSH + "list_id", 1001, lambda i: i.pushes[0].list_id, 1001),
        (PUSH + "list_id", None, lambda i: i.pushes[0].list_id, None),
        (PUSH + "partition", "Europe", lambda i: i.pushes[0].partition, "Europe"),
        (REST + "endpoint", "http://127.0.0.1:8080/", lambda i: i.rest.endpoint, "http://127.0.0.1:8080"),
        (REST + "identity", "https://id.example.com/", lambda i: i.rest.identity, "https://id.example.com"),
        (REST + "identity", None, lambda i: i.rest.identity, "https://rest.example.com/identity"),
        (SOAP + "endpoint", "https://example.com/3_1/", lambda i: i.soap.endpoint, "https://example.com/3_1"),
        (SOAP + "encryption_key", 12345678, lambda i: i.soap.encryption_key.reveal(), "12345678"),
        (NETWORK + "proxy", "http://u:p@proxy:3128", lambda i: i.network.proxy, "http://u:p@proxy:3128"),
        (NETWORK + "timeout", "1m30s", lambda i: i.network.timeout, timedelta(seconds=90)),
    ],
)
def test_accepted(path: str, value: Any, read: Any, expected: object, loaded: Load) -> None:
    (instance,) = loaded(document({path: value})).instances
    assert read(instance) == expected


def test_a_number_is_not_read_as_octal(loaded: Load) -> None:
    text = document({SOAP + "encryption_key": "KEY"}).replace("KEY", "0123456")
    soap = loaded(text).instances[0].soap
    assert soap is not None
    assert soap.encryption_key.reveal() == "0123456"


def test_what_is_absent_has_the_defaults_of_the_settings(loaded: Load) -> None:
    result = loaded(document({}))
    (instance,) = result.instances
    assert instance.limits == settings.Limits()
    assert instance.network == settings.Network()
    assert instance.history == timedelta(days=90)
    assert instance.keep == settings.Keep(timedelta(days=400), timedelta(days=30))
    assert instance.pulls == (settings.Pull("people", "soap", settings.UpdatedSince(datetime(2016, 1, 1, tzinfo=UTC))),)
    assert instance.pushes == (settings.Push("contacts"),)
    assert instance.rest is not None
    assert instance.rest.identity == "https://rest.example.com/identity"
    assert result.http == Http()
    assert result.logging == settings.Logging()


def test_the_default_time_of_values_must_fit_too(problems: Problems) -> None:
    (problem,) = problems(document({"instances.acme.keep.outcomes": "7d"}))
    why = "30d, the default, is not allowed here; at most instances.acme.keep.outcomes, which is 7d"
    assert (problem.path, problem.message) == ("instances.acme.keep.payloads", why)


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:9000", Http("127.0.0.1", 9000)),
        ("127.9.9.9:1", Http("127.9.9.9", 1)),
        ("[::1]:9000", Http("::1", 9000)),
        ("localhost:0", Http("localhost", 0)),
    ],
)
def test_listen(listen: str, expected: Http, loaded: Load) -> None:
    assert loaded(document({"http.listen": listen})).http == expected


def test_others_get_to_listen_with_a_token(loaded: Load, problems: Problems) -> None:
    http = loaded(document({"http": {"listen": "0.0.0.0:9464", "token": "open sesame"}})).http
    assert http is not None
    assert (http.host, http.port) == ("0.0.0.0", 9464)
    assert http.token is not None
    assert http.token.reveal() == "open sesame"
    assert "sesame" not in repr(http)
    (problem,) = problems(document({"http": {"listen": "0.0.0.0:9464", "token": None}}))
    assert (problem.path, problem.line > 0) == ("http.listen", True)


def test_http_null_disables_the_listener(loaded: Load) -> None:
    assert loaded(document({"http": None})).http is None
    assert loaded(document({"http": {}})).http == Http()


@pytest.mark.parametrize("database", [{}, {"dsn": None}, {"dsn": "postgresql://x", "embedded": "pg"}])
def test_exactly_one_database(database: dict[str, Any], problems: Problems) -> None:
    (problem,) = problems(document({"database": database}))
    assert (problem.path, problem.message) == ("database", "needs exactly one of dsn and embedded")


def test_embedded_is_relative_to_the_yaml(loaded: Load, tmp_path: Path) -> None:
    assert loaded(document({"database": {"embedded": "pg"}})).database.embedded == tmp_path / "pg"
    assert loaded(document({"database": {"embedded": "/var/pg", "dsn": None}})).database.embedded == Path("/var/pg")


def test_ca_file_is_relative_to_the_yaml(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    assert loaded(document({NETWORK + "ca_file": "ca.pem"})).instances[0].network.ca_file == tmp_path / "ca.pem"


@pytest.mark.parametrize("how", [{"without": "instances.acme.soap"}, {"changes": {"instances.acme.soap": None}}])
def test_a_soap_pull_needs_soap(how: dict[str, Any], problems: Problems) -> None:
    (problem,) = problems(document(**{"changes": {}, **how}))
    assert (problem.path, problem.message) == (PULL + "source", "soap needs instances.acme.soap, which is missing")


def test_a_push_needs_rest(problems: Problems) -> None:
    (problem,) = problems(document({}, without="instances.acme.rest"))
    assert (problem.path, problem.message) == (PUSH[:-1], "a push needs instances.acme.rest, which is missing")


def test_an_instance_needs_an_api(problems: Problems) -> None:
    (problem,) = problems(document({"instances": {"acme": {}}}))
    assert (problem.path, problem.message) == ("instances.acme", "needs at least one of rest and soap")


def test_one_api_is_enough(loaded: Load) -> None:
    text = document({"instances.acme.pulls": {}}, without="instances.acme.soap")
    (instance,) = loaded(text).instances
    assert isinstance(instance, Instance)
    assert instance.soap is None


def test_the_default_number_of_streams_must_fit_too(problems: Problems) -> None:
    (problem,) = problems(document({LIMITS + "concurrency": 3}))
    assert problem.path == PULL + "streams"
    assert problem.message.startswith("4, the default, is not allowed here; at most 3, for ")


@pytest.mark.parametrize("reserve", [2000, 2001])
def test_the_reserve_is_less_than_what_it_is_of(reserve: int, problems: Problems) -> None:
    (problem,) = problems(document({LIMITS + "subscription_calls": 2000, LIMITS + "urgent_reserve": reserve}))
    assert problem.path == LIMITS + "urgent_reserve"
    assert problem.message == f"{reserve} is not allowed; less than instances.acme.limits.subscription_calls, which is 2,000"


def test_a_reserve_that_leaves_one_call(loaded: Load) -> None:
    limits = loaded(document({LIMITS + "subscription_calls": 2000, LIMITS + "urgent_reserve": 1999})).instances[0].limits
    assert (limits.subscription_calls, limits.urgent_reserve) == (2000, 1999)


def test_the_default_reserve_must_fit_too(problems: Problems) -> None:
    (problem,) = problems(document({LIMITS + "subscription_calls": 1000}))
    assert problem.path == LIMITS + "urgent_reserve"
    assert problem.message.startswith("1000, the default, is not allowed here; less than instances.acme.limits.subscription_calls")


def test_the_default_poll_min_must_fit_too(problems: Problems) -> None:
    (problem,) = problems(document({PUSH + "poll.max": "4s"}))
    assert (problem.path, problem.message) == (
        PUSH + "poll.min",
        "5s, the default, is not allowed here; at most poll.max, which is 4s",
    )


@pytest.mark.parametrize(
    "path",
    [
        "database",
        "instances",
        REST + "endpoint",
        REST + "client_id",
        REST + "client_secret",
        SOAP + "endpoint",
        SOAP + "user_id",
        SOAP + "encryption_key",
        PULL + "source",
        PULL + "select",
    ],
)
def test_required_keys(path: str, problems: Problems) -> None:
    (problem,) = problems(document({}, without=path))
    assert (problem.path, problem.message) == (path, "is missing")
