"""Prompts through tokenizers built like Llama-2's and CodeGen's, and files that belong to another model."""
from __future__ import annotations

import json
from dataclasses import replace

import pytest
from known_tokenizers import known_llama, known_phi
from small_models import codegen_tokenizer, dims_of, llama_tokenizer
from tokenizers import Tokenizer

from hybridvla_core.checkpoints.dims import config_from_dims
from hybridvla_core.checkpoints.tokenizer import check_tokenizer
from hybridvla_core.errors import CheckpointError, ObservationError
from hybridvla_core.model.presets import preset
from hybridvla_core.training.tokenizer import build_tiny_tokenizer, with_new_words
from hybridvla_core.transforms.prompt import PromptEncoder

pytestmark = pytest.mark.versions

FAMILIES = {"llama": llama_tokenizer, "phi": codegen_tokenizer}


def config_of(family):
    return config_from_dims(dims_of(family), 1, 1, "variance")


@pytest.fixture(params=list(FAMILIES))
def family(request):
    return request.param


@pytest.fixture
def encoder(family, tmp_path):
    path = tmp_path / "tokenizer.json"
    FAMILIES[family]().save(str(path))
    check_tokenizer(path, config_of(family))
    return PromptEncoder.from_file(path, config_of(family).sequence)


def test_the_layout_of_both_families(family, encoder):
    sequence = encoder.config
    ids = encoder.ids("close the lid")
    assert ids[0] == sequence.bos and ids.count(sequence.bos) == 1, "BOS once, though the file adds its own"
    assert ids[-2:] == [*sequence.before_bod, sequence.bod]
    both = encoder.ids("close the lid", autoregressive=True)
    assert both == ids + [sequence.eod, *sequence.after_eod]
    assert (len(sequence.after_eod) == 1) == (family == "llama")


def test_ids_spell_the_prompt(family, encoder):
    text = encoder.tokenizer.decode(encoder.text_ids("Close THE lid"))
    assert text.strip() == encoder.prompt("Close THE lid").replace("<|endoftext|>", "").strip()
    assert "close the lid?\nOut" in text


def test_merges_and_the_line_break_are_the_family_s(family, encoder):
    ids = encoder.text_ids("the")
    if family == "llama":
        assert encoder.tokenizer.token_to_id("\u2581the") in ids and encoder.tokenizer.token_to_id("<0x0A>") in ids
        assert encoder.tokenizer.id_to_token(ids[0]) == "\u2581", "a blank is put in front, as SentencePiece does"
    else:
        assert encoder.tokenizer.token_to_id("\u0120the") in ids and encoder.tokenizer.token_to_id("\u010a") in ids
        assert encoder.tokenizer.id_to_token(ids[0]) == "I"


def test_letters_outside_the_vocabulary_become_bytes(encoder):
    assert encoder.text_ids("ros\u00e9") != encoder.text_ids("rose")
    assert "ros\u00e9" in encoder.tokenizer.decode(encoder.text_ids("ros\u00e9"))


@pytest.mark.parametrize("instruction, prompt", [
    ("   close   the box  ", "take to    close   the box  ?"), ("OPEN the <image> Drawer", "take to open the  drawer?"),
    ("", "take to ?")])
def test_released_quirks_of_the_prompt(encoder, instruction, prompt):
    assert prompt in encoder.prompt(instruction)


@pytest.mark.parametrize("instruction", ["", "  ", "<image>", " <image> "])
def test_an_instruction_that_says_nothing_is_refused(encoder, instruction):
    with pytest.raises(ObservationError, match="empty"):
        encoder.ids(instruction)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    codegen_tokenizer().save(str(path))
    with pytest.raises(CheckpointError, match="blank"):
        check_tokenizer(path, config_of("llama"))
    llama_tokenizer().save(str(path))
    config = config_of("llama")
    with pytest.raises(CheckpointError, match="begins every sequence"):
        check_tokenizer(path, replace(config, sequence=replace(config.sequence, bos=300)))
    with pytest.raises(CheckpointError, match="rows"):
        check_tokenizer(path, replace(config, sequence=replace(config.sequence, action_vocab_end=256, pad=0, bod=0, eod=0),
                                      decoder=replace(config.decoder, vocab_rows=300)))
    added = llama_tokenizer()
    added.add_special_tokens(["<BOD>"])
    added.save(str(path))
    with pytest.raises(CheckpointError, match="<BOD> is id"):
        check_tokenizer(path, config)
    path.write_text("{}")
    with pytest.raises(CheckpointError, match="not a readable tokenizer"):
        check_tokenizer(path, config)


def edited(family, tmp_path, **changes):
    """Return a family's tokenizer file with settings that an earlier program has changed."""
    path = tmp_path / "edited.json"
    FAMILIES[family]().save(str(path))
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


TRUNCATION = {"direction": "Right", "max_length": 6, "strategy": "LongestFirst", "stride": 0}
PADDING = {"strategy": {"Fixed": 64}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
           "pad_token": "<unk>"}


def test_cut_off_filling_up_and_dropout_change_no_id(family, encoder, tmp_path):
    model = json.loads(FAMILIES[family]().to_str())["model"]
    path = edited(family, tmp_path, truncation=TRUNCATION, padding=PADDING, model={**model, "dropout": 0.9})
    check_tokenizer(path, config_of(family))
    other = PromptEncoder.from_file(path, config_of(family).sequence)
    for _ in range(5):
        assert other.ids("put the lid on the other box") == encoder.ids("put the lid on the other box")


@pytest.mark.parametrize("normaliser", [
    {"type": "Lowercase"}, {"type": "NFKC"}, {"type": "StripAccents"}, {"type": "NFD"},
    {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "Replace", "pattern": {"Regex": " +"}, "content": " "}], ids=lambda value: value["type"])
def test_another_normaliser_is_refused(family, tmp_path, normaliser):
    usual = json.loads(FAMILIES[family]().to_str())["normalizer"]
    inner = [normaliser] + (usual["normalizers"] if usual else [])
    path = edited(family, tmp_path, normalizer={"type": "Sequence", "normalizers": inner})
    if normaliser["type"] == "Strip" and family == "llama":       # a prompt has nothing to strip at its ends
        check_tokenizer(path, config_of(family))
        return
    with pytest.raises(CheckpointError, match="normaliser"):
        check_tokenizer(path, config_of(family))


@pytest.mark.parametrize("name, known", [("hybridvla-7b", known_llama), ("hybridvla-2.7b", known_phi)])
def test_the_released_families_are_known_by_the_ids_of_one_prompt(name, known, tmp_path):
    path, tokenizer = tmp_path / "tokenizer.json", known()
    tokenizer.save(str(path))
    check_tokenizer(path, preset(name))
    content = json.loads(path.read_text())
    words = content["model"]["vocab"]
    close, take = (next(word for word in words if word[1:] == end and len(word) == len(end) + 1) for end in ("close", "take"))
    words[close], words[take] = words[take], words[close]
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="recorded ones"):
        check_tokenizer(path, preset(name))


@pytest.mark.parametrize("instruction, mark", [("lift </s> the lid", "</s>"), ("<s>lift", "<s>"), ("<UNK> lift", "<unk>")])
def test_marks_in_an_instruction_are_refused(tmp_path, instruction, mark):
    path = tmp_path / "tokenizer.json"
    llama_tokenizer().save(str(path))
    with pytest.raises(ObservationError, match=f"holds {mark}"):
        PromptEncoder.from_file(path, config_of("llama").sequence).ids(instruction)


def test_words_that_the_tokenizer_does_not_know_are_named(encoder):
    assert encoder.unknown_words("lift the zorble") == [], "letters and bytes spell every word"
    words = PromptEncoder(build_tiny_tokenizer(), preset("tiny").sequence)
    assert words.unknown_words("Put the zorble on the flim, zorble") == ["zorble", "flim", ","]
    with pytest.raises(ObservationError, match="knows no word"):
        words.ids("zorble flim")


def test_a_checkpoint_with_fewer_of_the_tiny_words_learns_the_new_ones_and_no_other_tokenizer_changes():
    today = json.loads(build_tiny_tokenizer().to_str())
    earlier = json.loads(json.dumps(today))
    earlier["model"]["vocab"] = dict(list(today["model"]["vocab"].items())[:100])
    assert json.loads(with_new_words(Tokenizer.from_str(json.dumps(earlier))).to_str()) == today
    earlier["model"]["vocab"]["zorble"] = 100          # its id belongs to another word today
    foreign = Tokenizer.from_str(json.dumps(earlier))
    assert with_new_words(foreign) is foreign
    llama = llama_tokenizer()
    assert with_new_words(llama) is llama


def test_text_that_is_no_text_is_named(encoder):
    with pytest.raises(ObservationError, match="UTF-8"):
        encoder.ids("the \udce9 cup")
