"""What a reload takes up, and what it leaves for a restart."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from syncd.core.reload import connections_of, reload
from syncd.core.settings import Database, Http, Instance, Limits, Logging, Pull, Push, Rest, Secret, Settings, UpdatedSince

PEOPLE = Pull("people", "auto", UpdatedSince(datetime(2026, 1, 1, tzinfo=UTC)), ("firstName",))
ACME = Instance("acme", pulls=(PEOPLE,), pushes=(Push("contacts"),))
BETA = Instance("beta")
OLD = Settings(Database(Secret("postgresql://u:p@h/d")), (ACME, BETA))


def test_the_same_again_changes_nothing() -> None:
    again = replace(OLD, database=Database(Secret("postgresql://u:p@h/d")))
    found = reload(OLD, again, 100)
    assert (found.anew, found.ended, found.changed, found.waiting) == ((), (), (), ())


def test_only_the_instance_that_changed_begins_anew() -> None:
    other = replace(ACME, limits=Limits(concurrency=3), pulls=(replace(PEOPLE, fields=("firstName", "title")),))
    found = reload(OLD, replace(OLD, instances=(other, BETA)), 100)
    assert found.settings.instances == (other, BETA)
    assert found.anew == ("acme",)
    assert found.changed == ("instances.acme.limits", "instances.acme.pulls.people.fields")


def test_pulls_pushes_and_instances_come_and_go() -> None:
    other = replace(ACME, pulls=(), pushes=(*ACME.pushes, Push("guests")))
    found = reload(OLD, replace(OLD, instances=(other, Instance("gamma"))), 100)
    assert (found.anew, found.ended) == (("acme", "gamma"), ("beta",))
    assert found.changed == (
        "instances.acme.pulls.people (gone)",
        "instances.acme.pushes.guests (new)",
        "instances.beta (gone)",
        "instances.gamma (new)",
    )


def test_the_order_of_pushes_counts_for_they_take_turns() -> None:
    two = replace(ACME, pushes=(Push("contacts"), Push("guests")))
    turned = replace(two, pushes=two.pushes[::-1])
    found = reload(replace(OLD, instances=(two,)), replace(OLD, instances=(turned,)), 100)
    assert (found.anew, found.changed) == (("acme",), ("instances.acme.pushes (in another order)",))


def test_database_and_listener_wait_for_a_restart_and_all_else_goes_on() -> None:
    new = Settings(Database(Secret("postgresql://u:p@elsewhere/d")), (BETA,), Http(port=1))
    found = reload(OLD, new, 100)
    assert (found.settings.database, found.settings.http) == (OLD.database, OLD.http)
    assert found.ended == ("acme",)
    assert [key.partition(" ")[0] for key in found.waiting] == ["database", "http"]


def test_instances_that_need_more_connections_than_there_are_wait() -> None:
    new = replace(OLD, instances=(*OLD.instances, Instance("gamma")))
    needed = connections_of(new.instances)
    assert reload(OLD, new, needed).anew == ("gamma",)
    found = reload(OLD, new, needed - 1)
    assert (found.settings.instances, found.anew, found.changed) == (OLD.instances, (), ())
    assert found.waiting == (f"instances (they need {needed} connections to the database, and {needed - 1} were made room for)",)


def test_another_level_of_the_log_reaches_all_flows_another_beat_needs_none() -> None:
    louder = reload(OLD, replace(OLD, logging=Logging("debug")), 100)
    assert (louder.anew, louder.changed) == (("acme", "beta"), ("logging.level",))
    slower = reload(OLD, replace(OLD, logging=Logging(metrics_every=timedelta(hours=1))), 100)
    assert (slower.anew, slower.changed) == ((), ("logging.metrics_every",))


def test_a_secret_is_what_is_written_not_what_a_file_holds() -> None:
    def with_secret(secret: Secret) -> Settings:
        return replace(OLD, instances=(replace(ACME, rest=Rest("https://a", "https://a/identity", Secret("id"), secret)),))

    assert reload(with_secret(Secret("one")), with_secret(Secret("one")), 100).anew == ()
    found = reload(with_secret(Secret("one")), with_secret(Secret("two")), 100)
    assert (found.anew, found.changed) == (("acme",), ("instances.acme.rest",))
