"""A faithful Marketo to rehearse with, over real HTTP and with a moving lead database: SOAP, identity, describe, usage, bulk import,
bulk extract, activities, leads by id and Sync Leads.

Written from the protocol alone; it imports nothing else of syncd, so that a misreading is not shared.
"""

from syncd.simulator.catalogue import Catalogue
from syncd.simulator.clock import Clock, ScaledClock
from syncd.simulator.exports import ExportView
from syncd.simulator.fault_kinds import Fault
from syncd.simulator.fields import Field
from syncd.simulator.imports import Slot
from syncd.simulator.lists import SmartList, StaticList
from syncd.simulator.log import Activity
from syncd.simulator.report import CallCount, DuplicateLiveKey, Report, SyncedLiveKey
from syncd.simulator.server import Simulator
from syncd.simulator.settings import (
    ActivityModel,
    Credentials,
    ExportModel,
    FaultRates,
    ForeignLoad,
    ImportModel,
    Limits,
    Movement,
    SimulatorSettings,
)
from syncd.simulator.world import Lead, World

__all__ = [
    "Activity",
    "ActivityModel",
    "CallCount",
    "Catalogue",
    "Clock",
    "Credentials",
    "DuplicateLiveKey",
    "ExportModel",
    "ExportView",
    "Fault",
    "FaultRates",
    "Field",
    "ForeignLoad",
    "ImportModel",
    "Lead",
    "Limits",
    "Movement",
    "Report",
    "ScaledClock",
    "Simulator",
    "SimulatorSettings",
    "Slot",
    "SmartList",
    "StaticList",
    "SyncedLiveKey",
    "World",
]
