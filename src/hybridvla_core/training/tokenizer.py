"""Tokenizer of the tiny model: whole words, lower case, at most 512 ids below the action ids."""
from __future__ import annotations

import json

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

#: Ids are positions in this list: append, never reorder, or trained checkpoints lose their words.
SPECIAL = ("<unk>", "<s>", "</s>")
WORDS = (
    "put the red green blue yellow block on pad pick up place move push pull lift lower open close turn rotate grasp "
    "release take bring give hold drop stack unstack insert remove slide press pour wipe fold unfold sweep hang reach "
    "go stop wait return and then to from in into onto over under above below behind beside between near next of off "
    "out at with a an it its that this all both each every other one two three four first second third last left right "
    "front back top bottom middle center side corner edge upper lower big small large tiny long short tall round square "
    "flat empty full black white grey gray brown orange purple pink cyan cube ball bowl cup mug plate dish bottle can "
    "box bin basket tray drawer door lid handle button switch lever knob table desk shelf rack cabinet fridge oven sink "
    "stove pan pot kettle spoon fork knife spatula sponge towel cloth eraser board whiteboard blackboard marker pen "
    "pencil book paper phone base laptop charger cable plug socket lamp light umbrella stand shoe shorts shirt sock "
    "apple banana pear peach lemon carrot potato tomato onion bread egg cheese water milk juice coffee tea sugar salt "
    "toy car duck bear ring peg hole tower line row column circle triangle rectangle cylinder cone robot arm arms hand "
    "gripper finger object objects thing things container toilet seat down dustpan broom wine glass plant plants dirt "
    "frame hanger picture safe money screw nut bolt bulb screwdriver hammer tape string rope chain wheel gear "
    "shut pushing screen by unhang clean while stains holding together carry set charging use pieces brush flip leave hands "
    "mark blocks them their plates get some watering slot belongs part"
).split()


def build_tiny_tokenizer() -> Tokenizer:
    """Builds a `tokenizers.Tokenizer`; unknown words become <unk>, id 0."""
    words = list(SPECIAL) + list(dict.fromkeys(WORDS))
    assert len(words) <= 512
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def with_new_words(tokenizer: Tokenizer) -> Tokenizer:
    """Adds to a checkpoint's tiny tokenizer the words that were appended since; its own words keep their ids.

    Args:
        tokenizer: Tokenizer of the checkpoint.

    Returns:
        Today's tiny tokenizer; any other tokenizer unchanged.
    """
    today = build_tiny_tokenizer()
    own, ours = (json.loads(item.to_str())["model"] for item in (tokenizer, today))
    known = own.get("type") == ours["type"] and own["vocab"].items() <= ours["vocab"].items()
    return today if known else tokenizer
