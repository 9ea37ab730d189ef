"""Keys into motion: a key moves for a moment, a held one while it repeats, silence lets go, through a real pseudo-terminal."""
from __future__ import annotations

import os
import pty
import subprocess
import sys

import numpy as np
import pytest

from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import Pose
from hybridvla_core.paths import ROOT
from hybridvla_ros.console.episode_keys import KeyReader
from hybridvla_ros.console.keyboard_teleop import CLICK_S, HELD_S, KEYS, MOVES_S, SPEEDS, Keyboard, loop
from hybridvla_ros.console.teleop import Teleop, TeleopConfig

FILE = ROOT / "config/teleop/keyboard.yaml"


def test_a_key_moves_along_its_axis_for_a_moment_and_the_switch_is_let_go_later():
    for key, (axis, direction) in KEYS.items():
        keyboard = Keyboard()
        assert keyboard.press(key, 10.0)
        twist = keyboard.twist(10.0)
        assert np.sign(twist[axis]) == direction and np.count_nonzero(twist) == 1
        assert keyboard.buttons(10.0) == (1, 0)
        assert not any(keyboard.twist(10.0 + MOVES_S + 0.01)) and keyboard.buttons(10.0 + HELD_S - 0.01) == (1, 0)
        assert keyboard.buttons(10.0 + HELD_S + 0.01) == (0, 0)


@pytest.mark.parametrize("key", [" ", "x", "\x1b", "\x1b[A", "\x1b[F"])
def test_space_and_every_key_that_is_none_of_ours_lets_go_at_once(key):
    keyboard = Keyboard()
    keyboard.press("w", 1.0)
    assert keyboard.press(key, 1.01) == (key == " ")
    assert not any(keyboard.twist(1.01)) and keyboard.buttons(1.01) == (0, 0)


def test_a_held_gripper_key_is_one_click():
    keyboard, clicks, before = Keyboard(), 0, 0
    for step in range(int(CLICK_S * 1.9 / 0.03)):
        keyboard.press("g", 5.0 + 0.03 * step)
        pressed = keyboard.buttons(5.0 + 0.03 * step)[1]
        clicks, before = clicks + (pressed > before), pressed
    assert clicks == 1


def test_speeds_go_up_and_down_and_no_further():
    keyboard = Keyboard()
    for _ in range(9):
        keyboard.press("+", 0.0)
    assert keyboard.speed == SPEEDS[-1] and keyboard.buttons(0.0) == (0, 0), "a speed is no hand on the switch"
    for _ in range(9):
        keyboard.press("-", 0.0)
    assert keyboard.speed == SPEEDS[0]


def test_a_held_key_moves_the_arm_by_the_same_rules_as_a_spacemouse_and_release_stops_it():
    teleop, keyboard = Teleop(load_file(TeleopConfig, FILE)), Keyboard()
    teleop.on_opening(1.0, commanded=False)
    at, made = np.array([0.4, 0.0, 0.3]), []
    for step in range(60):
        now = 0.05 * step
        if step < 20:
            keyboard.press("a", now)
        twist = keyboard.twist(now)
        teleop.on_twist(twist[:3], twist[3:], now)
        teleop.on_buttons(keyboard.buttons(now), now)
        teleop.on_commanded(Pose(at, np.array([1.0, 0.0, 0.0, 0.0])), now)
        target = teleop.tick(now)
        made.append(target is not None)
        if target is not None:
            at = target[1].position
    assert 0.03 < at[1] < 0.06 and abs(at[0] - 0.4) < 1e-9
    assert made[19] and not any(made[34:]), "the switch is let go"


def test_keys_come_through_a_terminal_and_q_ends():
    master, slave = pty.openpty()
    seen, said = [], []
    try:
        with KeyReader(slave) as reader:
            os.write(master, b"w")
            ticks = iter(range(1000))

            def publish(twist, buttons):
                seen.append((twist, buttons))
                if len(seen) == 3:
                    os.write(master, b"+q")
            loop(reader, publish, said.append, lambda: next(ticks) * 0.02)
    finally:
        os.close(master)
        os.close(slave)
    assert seen[0][0][0] > 0 and seen[0][1] == (1, 0)
    assert said[0].startswith("hold a key") and said[-1] == "speed 60%"


def test_without_a_terminal_it_says_so():
    done = subprocess.run([sys.executable, str(ROOT / "nodes/keyboard_teleop")], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=60, check=False)
    assert done.returncode == 1 and "needs a terminal" in done.stderr


def test_the_launch_file_hands_on_the_keyboards_file():
    done = subprocess.run(["roslaunch", "--dump-params", str(ROOT / "launch/record.launch"), "teleop:=keyboard"],
                          stdout=subprocess.PIPE, encoding="utf-8", timeout=60, check=True)
    assert "/spacemouse_node/teleop_config: config/teleop/keyboard.yaml" in done.stdout
    assert "/recorder_node/teleoperation: keyboard" in done.stdout
