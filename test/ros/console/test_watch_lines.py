"""`hybridvla watch` on a state that goes back and forth: each line now and then, and at the end the one that holds."""
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
    reader.tell("INACTIVE", "ACTIVE", "HOLDING", "STOPPED")
    assert reader.read == ["INACTIVE", "ACTIVE", "HOLDING", "STOPPED"] and reader.lines.any


def test_a_state_that_goes_back_and_forth_is_said_now_and_then():
    reader = Reader()
    reader.tell(*["ACTIVE", "HOLDING"] * 40)                # 20 s
    said = [line for line in reader.read if not line.startswith("(")]
    assert said.count("ACTIVE") == said.count("HOLDING") == 20 // AGAIN_S
    left_out = sum(int(line[1:].split()[0]) for line in reader.read if line.startswith("("))
    assert left_out + len(said) + reader.lines._left_out == 80


def test_what_holds_at_the_end_is_said():
    reader = Reader()
    reader.tell("ACTIVE", "HOLDING", "ACTIVE", "HOLDING", "ACTIVE")
    assert reader.read == ["ACTIVE", "HOLDING"]
    reader.rest(SETTLED_S)
    assert reader.read == ["ACTIVE", "HOLDING", "(2 more changes between lines that stand above)", "ACTIVE"]
    reader.rest(10.0)
    assert len(reader.read) == 4


def test_nothing_said_is_known():
    assert not Reader().lines.any
