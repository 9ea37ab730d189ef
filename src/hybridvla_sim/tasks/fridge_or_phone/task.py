"""Fridge or phone: a scene in which two tasks are possible; the sentence decides which one."""
from __future__ import annotations

import xml.etree.ElementTree as ET

from hybridvla_sim.taskkit.phrases import Phrases
from hybridvla_sim.tasks.close_fridge import task as fridge
from hybridvla_sim.tasks.phone_on_base import task as phone

FRIDGE, PHONE = "fridge", "phone"
PHRASES = Phrases("fridge_or_phone", {FRIDGE: fridge.PHRASES.goals["shut"], PHONE: phone.PHRASES.goals["base"]},
                  {**fridge.PHRASES.things, **phone.PHRASES.things})


def build(root: ET.Element) -> None:
    """Adds an open fridge, a phone and its base."""
    fridge.build(root)
    phone.build(root)
