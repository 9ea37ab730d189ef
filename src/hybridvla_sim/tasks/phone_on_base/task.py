"""Phone on base: put a phone from the table into its charging base."""
from __future__ import annotations

import xml.etree.ElementTree as ET

from hybridvla_sim.taskkit.phrases import Phrases, Thing
from hybridvla_sim.taskkit.shapes import GRIPPY, box, fixed, loose, mark, worldbody

#: Half edges of the phone, m; the groove of the base is a little wider, so that a phone across it rests on the rails.
PHONE, GROOVE, RAIL, BASE_Z = (0.062, 0.026, 0.011), 0.033, 0.012, 0.02
PHRASES = Phrases("phone_on_base", {"base": (
    "put the phone on the base", "put the phone on the charging base", "place the phone on its base", "hang up the phone",
    "grasp the phone and put it on the base", "set the phone down on the stand")}, {
    "phone": Thing(("phone",), "phone", symmetry=2),
    "base": Thing(("charging base", "base", "stand"), "phone_base", "cradle", symmetry=2)})


def build(root: ET.Element) -> None:
    """Adds a phone and a base with two rails."""
    base = fixed(worldbody(root), "phone_base")
    box(base, (0.055, 0.05, BASE_Z / 2), (0.0, 0.0, BASE_Z / 2))
    for sign in (1, -1):
        box(base, (0.055, 0.004, RAIL / 2), (0.0, sign * (GROOVE + 0.004), BASE_Z + RAIL / 2), (0.75, 0.75, 0.75))
    mark(base, "cradle", (0.0, 0.0, BASE_Z))
    phone = loose(root, "phone")
    box(phone, PHONE, mass=0.08, **GRIPPY)
    box(phone, (0.048, 0.021, 0.0015), (0.0, 0.0, PHONE[2]), (0.08, 0.09, 0.10), mass=0.002, **GRIPPY)
