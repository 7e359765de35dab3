"""The unit under a real systemd (machine.sh): READY, exits and restarts, reload, credentials, watchdog, stop."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.overhearing import hear

SYSTEMD = Path("/lib/systemd/systemd")
MACHINE = Path(__file__).parent / "machine.sh"
LONGEST = 420  # seconds

pytestmark = pytest.mark.system

DRIVER = r"""
show() { echo "## $1"; systemctl show syncd -p ActiveState -p Result -p ExecMainStatus -p NRestarts -p StatusText; }
becomes() { # property value: for at most 40 s
    for _ in $(seq 200); do case "$(systemctl show syncd -P "$1")" in $2) return 0 ;; esac; sleep 0.2; done
    echo "$1 did not become $2: $(systemctl show syncd -P "$1")"; return 1
}
yaml() {
    printf 'database: {%s}\nhttp: null\ninstances: {acme: {rest: {endpoint: "http://127.0.0.1:1", %s}}}\n' "$1" "$2" > /etc/syncd/syncd.yaml
}
embedded='embedded: /var/lib/syncd/postgres' rest='client_id: a, client_secret: {file: acme_client_secret}'
printf secret > /etc/syncd/acme_client_secret
chmod 600 /etc/syncd/acme_client_secret

yaml "$embedded" "$rest"
systemctl start syncd || true
sleep 2
show unreadable

sed -i 's/^#LoadCredential=acme_client/LoadCredential=acme_client/' /etc/systemd/system/syncd.service
printf '[Service]\nWatchdogSec=5s\nRestartSec=1s\n' > /etc/systemd/system/syncd.service.d/zz-soon.conf
systemctl daemon-reload
yaml 'dsn: "postgresql://syncd@127.0.0.1:1/syncd"' "$rest"
systemctl start syncd || true
becomes NRestarts '[1-9]'
show away
yaml "$embedded" "$rest"
becomes ActiveState active
show back
systemctl stop syncd

systemctl start syncd
show started
sed -n 's/^\(CapBnd\|NoNewPrivs\|Seccomp\):\t/\1=/p' "/proc/$(systemctl show -P MainPID syncd)/status"

yaml "$embedded" "$rest, identity: \"http://127.0.0.1:2\""
systemctl reload syncd
becomes StatusText '*reloaded'
show reloaded
yaml "$embedded" "$rest, colour: red"
systemctl reload syncd
becomes StatusText '*refused*'
show refused
yaml "$embedded" "$rest"

sleep 7 # longer than the watchdog's patience
show fed
kill -STOP "$(systemctl show -P MainPID syncd)"
becomes NRestarts 1
becomes StatusText 'working for acme'
show hung

begun=$(date +%s)
systemctl stop syncd
show stopped
echo "Seconds=$(($(date +%s) - begun))"
echo "Left=$(pgrep -c -u syncd || true)"

/opt/syncd/bin/syncd simulate --port 0 --leads 15000 > /tmp/marketo &
for _ in $(seq 200); do grep -q '^# Its Marketo runs' /tmp/marketo && break; sleep 0.2; done
sed 's|rehearsal-postgres|/var/lib/syncd/postgres|; s|source: auto|source: soap|; /guests/d' /tmp/marketo > /etc/syncd/syncd.yaml
echo 'http: null' >> /etc/syncd/syncd.yaml
walked() { /opt/syncd/bin/syncd status --json -i rehearsal | sed -n 's/^ *"leads": \([0-9]*\),$/\1/p' | head -n 1; }
systemctl start syncd
for _ in $(seq 200); do [ "$(walked)" -gt 500 ] && break; sleep 0.1; done
begun=$(date +%s)
systemctl stop syncd
show drained
echo "Seconds=$(($(date +%s) - begun))"
systemctl start syncd
echo "Before=$(walked)"
for _ in $(seq 100); do [ "$(walked)" -ge 15000 ] && break; sleep 0.5; done
echo "After=$(walked)"
systemctl stop syncd
"""


@dataclass(frozen=True)
class Seen:
    """What systemd said at each point of the driver, and what syncd wrote."""

    points: Mapping[str, Mapping[str, str]]
    log: str
    out: str


def missing() -> str | None:
    """What keeps the machine from running here."""
    if os.geteuid() != 0:
        return "only root can"
    if not SYSTEMD.exists():
        return "no systemd here"
    return next((f"no {tool} here" for tool in ("unshare", "pivot_root", "useradd", "pgrep") if shutil.which(tool) is None), None)


def run(driver: str) -> tuple[str, str]:
    """What the driver prints on the machine, and syncd's log."""
    with tempfile.TemporaryDirectory(prefix="syncd-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "driver").write_text(driver)
        command = ["sh", str(MACHINE), name, sys.executable]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
        out, log = folder / "out", folder / "log"
        return out.read_text() if out.exists() else done.stderr, log.read_text() if log.exists() else ""


@pytest.fixture(scope="module")
def seen() -> Seen:
    why = missing()
    if why is None and (said := run("echo it runs\n")[0]) != "it runs\n":
        why = f"systemd does not run in namespaces here: {said[-200:]}"
    if why is not None:
        pytest.skip(f"the unit under a real systemd is not tried: {why}")
    out, log = run(DRIVER)
    hear("syncd's log", log)
    points = {}
    for part in out.split("## ")[1:]:
        name, *lines = part.splitlines()
        points[name] = dict(line.split("=", 1) for line in lines if "=" in line)
    return Seen(points, log, out)


def test_all_of_it_was_done(seen: Seen) -> None:
    assert list(seen.points) == ["unreadable", "away", "back", "started", "reloaded", "refused", "fed", "hung", "stopped", "drained"], (
        seen.out
    )


def test_a_secret_that_only_root_can_read_ends_the_start_for_good(seen: Seen) -> None:
    assert seen.points["unreadable"].items() >= {"ActiveState": "failed", "ExecMainStatus": "78", "NRestarts": "0"}.items()
    assert "cannot read the secret file /etc/syncd/acme_client_secret: Permission denied" in seen.log


def test_a_database_that_is_away_is_tried_again_until_it_is_back(seen: Seen) -> None:
    assert int(seen.points["away"]["NRestarts"]) >= 1
    assert seen.points["back"].items() >= {"ActiveState": "active", "StatusText": "working for acme"}.items()


def test_started_means_ready_with_the_credential_and_nothing_else(seen: Seen) -> None:
    point = seen.points["started"]
    assert point["ActiveState"] == "active"
    assert seen.log.count('"event":"started"') >= 2
    assert (int(point["CapBnd"], 16), point["NoNewPrivs"], point["Seccomp"]) == (0, "1", "2")


def test_a_reload_is_answered_and_a_wrong_one_refused_while_it_works_on(seen: Seen) -> None:
    assert seen.points["reloaded"]["StatusText"] == "working for acme; configuration reloaded"
    assert seen.points["refused"]["StatusText"].startswith("working for acme; refused the configuration: /etc/syncd/syncd.yaml:3: ")
    assert {seen.points[point]["ActiveState"] for point in ("reloaded", "refused")} == {"active"}
    assert '"changed":["instances.acme.rest"]' in seen.log


def test_progress_feeds_the_watchdog_and_a_process_that_hangs_is_restarted(seen: Seen) -> None:
    assert seen.points["fed"].items() >= {"ActiveState": "active", "NRestarts": "0"}.items()
    assert seen.points["hung"].items() >= {"ActiveState": "active", "NRestarts": "1"}.items()
    assert "Fatal Python error: Aborted" in seen.log


def test_a_stop_drains_in_time_and_leaves_nothing_behind(seen: Seen) -> None:
    point = seen.points["stopped"]
    assert point.items() >= {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0", "Left": "0"}.items()
    assert int(point["Seconds"]) < 20
    assert seen.log.count('"event":"stopped"') >= 3


def test_a_stop_amid_the_work_lets_steps_end_and_loses_nothing(seen: Seen) -> None:
    point = seen.points["drained"]
    assert point.items() >= {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}.items()
    assert int(point["Seconds"]) < 20
    assert 500 < int(point["Before"]) < 15_000 == int(point["After"]), "it was amid a pull, and went on from there"
    assert "Traceback" not in seen.log
