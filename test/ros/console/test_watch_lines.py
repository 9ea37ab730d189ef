"""`hybridvla watch` on a state that goes back and forth: each line now and then, and at the end the state that holds."""
import threading

import pytest

from hybridvla_ros.console import watch as watch_module
from hybridvla_ros.console.watch import AGAIN_S, SETTLED_S, Lines


class Reader:
    def __init__(self):
        self.now, self.read = 100.0, []
        self.lines = Lines(self.read.append, lambda: self.now)

    def tell(self, *lines, every_s=0.25):
        for line in lines:
            self.lines.tell(line)
            self.lines.look()
            self.now += every_s

    def rest(self, seconds):
        self.now += seconds
        self.lines.look()


def test_changes_are_all_said_while_they_differ():
    reader = Reader()
    reader.tell("robot INACTIVE", "robot ACTIVE", "robot HOLDING", "robot STOPPED")
    assert reader.read == ["robot INACTIVE", "robot ACTIVE", "robot HOLDING", "robot STOPPED"] and reader.lines.any


def test_a_state_that_goes_back_and_forth_is_said_now_and_then():
    reader = Reader()
    reader.tell(*["robot ACTIVE", "robot HOLDING"] * 40)    # 20 s
    said = [line for line in reader.read if not line.startswith("(")]
    assert said.count("robot ACTIVE") == said.count("robot HOLDING") == 20 // AGAIN_S
    left_out = sum(int(line[1:].split()[0]) for line in reader.read if line.startswith("("))
    assert left_out + len(said) + reader.lines._left_out + len(reader.lines._waiting) == 80


def test_what_holds_at_the_end_is_said():
    reader = Reader()
    reader.tell("robot ACTIVE", "robot HOLDING", "robot ACTIVE", "robot HOLDING", "robot ACTIVE")
    assert reader.read == ["robot ACTIVE", "robot HOLDING"]
    reader.rest(SETTLED_S)
    assert reader.read == ["robot ACTIVE", "robot HOLDING", "(2 more changes between the lines above)", "robot ACTIVE"]
    reader.rest(10.0)
    assert len(reader.read) == 4


def test_what_holds_is_said_also_after_lines_about_something_else():
    """An instruction is given again while the arm moves: the terminal must not end with the other instruction."""
    reader = Reader()
    reader.tell("instruction left", "instruction nowhere", "instruction left", "robot ACTIVE", "filter holds")
    reader.rest(SETTLED_S)
    assert reader.read == ["instruction left", "instruction nowhere", "robot ACTIVE", "filter holds", "instruction left"]
    reader.tell("instruction nowhere", "robot HOLDING", "instruction left")
    reader.rest(SETTLED_S)
    assert reader.read[5:] == ["robot HOLDING", "(1 more changes between the lines above)", "instruction left"]


def test_nothing_said_is_known():
    assert not Reader().lines.any


def test_it_ends_when_nobody_reads_any_more(monkeypatch):
    monkeypatch.setattr(watch_module.rosgraph, "is_master_online", lambda: True)
    monkeypatch.setattr(watch_module.rospy, "init_node", lambda *_, **__: None)
    monkeypatch.setattr(watch_module.rospy, "is_shutdown", lambda: False)

    def heard(state):
        thread = threading.Thread(target=state.on_instruction, args=("lift it",))     # as on a thread of rospy
        thread.start()
        thread.join()
        return []
    monkeypatch.setattr(watch_module, "listen", heard)

    def say(_line):
        raise BrokenPipeError
    with pytest.raises(BrokenPipeError):
        watch_module.watch(say, seconds=60.0)
