"""The unit says what systemd is to do with the exits, the signals and the messages of syncd, and systemd understands it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from syncd.cli import failures
from syncd.cli.running import PATIENCE
from syncd.daemon import STUCK

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNIT = SYSTEMD / "syncd.service"
DROP_IN = SYSTEMD / "syncd.service.d" / "before-systemd-254.conf"
ANALYZE = shutil.which("systemd-analyze")
NEWER = {"RestartSteps": 254, "RestartMaxDelaySec": 254}
"""What only this systemd and newer ones know; older ones say so and go on."""
KNOWN = {
    "Unit": {"Description", "Documentation", "Wants", "After", "StartLimitIntervalSec"},
    "Service": {
        *("Type", "User", "Group", "ExecStart", "ExecReload", "Restart", "RestartSec", "RestartPreventExitStatus", *NEWER),
        *("KillMode", "TimeoutStartSec", "TimeoutStopSec", "WatchdogSec", "LoadCredential"),
        *("StateDirectory", "StateDirectoryMode", "WorkingDirectory", "UMask", "LimitCORE"),
        *("NoNewPrivileges", "CapabilityBoundingSet", "AmbientCapabilities", "DevicePolicy", "KeyringMode", "LockPersonality"),
        *("MemoryDenyWriteExecute", "PrivateDevices", "PrivateIPC", "PrivateMounts", "PrivateTmp", "PrivateUsers", "ProcSubset"),
        *("ProtectClock", "ProtectControlGroups", "ProtectHome", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules"),
        *("ProtectKernelTunables", "ProtectProc", "ProtectSystem", "RemoveIPC", "RestrictAddressFamilies", "RestrictNamespaces"),
        *("RestrictRealtime", "RestrictSUIDSGID", "SystemCallArchitectures", "SystemCallErrorNumber", "SystemCallFilter"),
    },
    "Install": {"WantedBy"},
}


def options(file: Path) -> dict[str, dict[str, list[str]]]:
    """Section → option → its values in their order."""
    found: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in file.read_text("utf-8").splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = heading[1]
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(section, {}).setdefault(name, []).append(value)
    return found


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|min)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "min": 60}[unit]


SERVICE = options(UNIT)["Service"]
OLDER = options(DROP_IN)["Service"]


@pytest.mark.parametrize("file", [UNIT, DROP_IN])
def test_it_uses_no_option_that_systemd_does_not_know(file: Path) -> None:
    found = options(file)
    assert found.keys() <= KNOWN.keys()
    assert {section: set(given) - KNOWN[section] for section, given in found.items()} == {section: set() for section in found}


def test_ready_is_waited_for_by_each_systemd() -> None:
    assert SERVICE["Type"] == ["notify-reload"]
    assert "ExecReload" not in SERVICE, "systemd sends SIGHUP itself, and waits for READY"
    assert (OLDER["Type"], OLDER["ExecReload"]) == (["notify"], ["/bin/kill -HUP $MAINPID"])


def test_it_is_restarted_for_what_a_restart_may_mend() -> None:
    assert SERVICE["Restart"] == ["on-failure"]
    assert SERVICE["RestartPreventExitStatus"] == [f"{failures.USAGE} {failures.CONFIGURATION}"]
    assert options(UNIT)["Unit"]["StartLimitIntervalSec"] == ["0"]
    assert seconds(SERVICE["RestartSec"][0]) < seconds(SERVICE["RestartMaxDelaySec"][0])


def test_syncd_has_its_time_to_stop_and_the_watchdog_its_patience() -> None:
    assert SERVICE["KillMode"] == ["mixed"], "an embedded PostgreSQL is stopped by syncd"
    assert seconds(SERVICE["TimeoutStopSec"][0]) > PATIENCE + 2
    assert 60 <= seconds(SERVICE["WatchdogSec"][0]) <= STUCK


def test_the_credentials_that_it_names_are_those_of_the_example() -> None:
    example = (SYSTEMD.parent / "config" / "syncd.example.yaml").read_text("utf-8")
    names = re.findall(r"^#LoadCredential=(\w+):/etc/syncd/\1$", UNIT.read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"\{file: ([a-z_]+)\}", example)) == set(names) - {"dsn"}


def version() -> int:
    assert ANALYZE is not None
    said = subprocess.run([ANALYZE, "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.split()[1])


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze here")
def test_systemd_thinks_it_safe() -> None:
    assert ANALYZE is not None
    command = [ANALYZE, "security", "--offline=true", "--threshold=11", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-200:]


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze here")
def test_systemd_has_nothing_to_say_about_it(tmp_path: Path) -> None:
    """But for what is newer than the systemd of this machine, which the drop-in is for."""
    assert ANALYZE is not None
    here = version()
    unit = tmp_path / "syncd.service"
    unit.write_text(UNIT.read_text("utf-8").replace("/opt/syncd/bin/syncd", "/bin/true"), "utf-8")
    if here < 254:
        shutil.copytree(DROP_IN.parent, tmp_path / "syncd.service.d")
    done = subprocess.run([ANALYZE, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    unknown = [name for name, since in NEWER.items() if since > here] + (["notify-reload"] if here < 253 else [])
    assert [line for line in done.stderr.splitlines() if str(tmp_path) in line and not any(name in line for name in unknown)] == []
