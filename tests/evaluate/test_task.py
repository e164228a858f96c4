import json
from collections import defaultdict
from dataclasses import replace

import pytest

from auricle.data import prompts, wording
from auricle.data.recipes import DIGITS
from auricle.data.vocabulary import EVENTS
from auricle.errors import ConfigError
from auricle.evaluate.mecat import FIELDS
from auricle.evaluate.scores import RULES
from auricle.evaluate.task import LanguageTask, language_tasks, load_language_task, read_language_tasks, slots
from auricle.metrics.tags import LabelMatcher


def declaration(**changes):
    task = {"name": "birds", "title": "Birds", "domain": "sound", "judge": "tagging", "prompt": "Which bird?"} | changes
    stored = {"suite": "mine", "tasks": [{name: value for name, value in task.items() if value is not None}]}
    return json.dumps({"format": "auricle-language-tasks/1", "suites": [stored]})


def test_all_published_sets_are_declared():
    suites = {}
    for task in language_tasks():
        suites.setdefault(task.suite, []).append(task.name)
        assert (task.kind, "compat") in RULES and (task.kind, "strict") in RULES
    assert {name: len(own) for name, own in suites.items()} == {"midashenglm": 28, "mecat": 2, "official": 6, "tiny": 7}
    assert [task.name for task in language_tasks("tiny")] == suites["tiny"]
    with pytest.raises(ConfigError, match="no suite 'big'; expected one of midashenglm, mecat, official, tiny"):
        language_tasks("big")


@pytest.mark.parametrize(
    ("name", "prompt", "figure"),
    [
        ("librispeech_other", "Transcribe the speech into text <|{lang}|>", 6.2),
        ("gigaspeech2_vi", "Transcribe the speech in to text <|{lang}|>", 18.1),
        ("voxceleb_gender", "What gender is the speaker?", 96.12),
        ("cochlscene", "what's the environmental sound heard?", 74.06),
        ("fsd50k", "Which labels describe the sound?", 37.58),
        ("clotho", "Write an audio caption describing the sound", 49.20),
        ("musicqa", "{question} Answer with 1-2 sentences", 62.35),
        ("mmau", "{question}\n{choices}\nAnswer with a single Letter: ", 66.30),
    ],
)
def test_published_prompts_and_figures(name, prompt, figure):
    task = load_language_task(name)
    assert (task.prompts[""], task.published["MiDashengLM-7B"]) == (prompt, figure)


def test_mecat_asks_for_six_captions():
    task = load_language_task("mecat_caption")
    assert tuple(task.prompts) == FIELDS
    assert task.prompts["short"] == "What is happening in this audio? Provide a brief caption within 15 words."
    assert not task.has_questions
    assert load_language_task("mecat_qa").has_questions


def test_the_tiny_suite_has_the_words_of_the_training_data():
    assert load_language_task("digits").prompts[""] == wording.TRANSCRIBE_PROMPT
    assert load_language_task("sentences").prompts[""] == wording.TRANSCRIBE_PROMPT
    assert load_language_task("event_captions").prompts[""] == wording.CAPTION_PROMPT
    assert load_language_task("events").prompts[""] in prompts.EVENT
    assert load_language_task("gender").prompts[""] in prompts.GENDER
    assert load_language_task("digits").only["text"] == DIGITS
    synonyms = load_language_task("events").synonyms
    assert set(synonyms) == {words.name for words in EVENTS.values()}
    names: dict[str, set[str]] = defaultdict(set)
    for words in EVENTS.values():
        for word in words.accepted:
            names[word].add(words.name)
    for word, named in names.items():  # a word of two events decides for the one that is called so, or for neither
        found = {name for name in named if word in (name, *synonyms[name])}
        own = {EVENTS[word].name} if word in EVENTS else set()
        assert found == (named if len(named) == 1 else own), word
    assert LabelMatcher(synonyms, synonyms).find("It is an ocean, and a phone.") == [
        "sea waves crashing",
        "telephone ringing",
    ]


def test_an_unknown_task_names_near_ones():
    with pytest.raises(ConfigError, match=r"no language task 'libri_speech_clean'\. Did you mean 'librispeech_clean'"):
        load_language_task("libri_speech_clean")


def test_a_declaration_is_read():
    (task,) = read_language_tasks(declaration(synonyms={"crow": ["raven"]}, published={"m": 3}), "mine.json")
    assert task.prompts == {"": "Which bird?"}
    assert task.synonyms == {"crow": ("raven",)}
    assert task.suite == "mine"
    assert len({task, replace(task, name="other")}) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sort": 1}, "unknown field birds.sort"),
        ({"title": None}, "has no birds.title"),
        ({"prompt": None}, "has no birds.prompts"),
        ({"name": "Birds!"}, "names are of a-z"),
        ({"judge": "wer"}, "birds.judge is 'wer', expected 'asr', 'tagging'"),
        ({"domain": "noise"}, "birds.domain is 'noise', expected 'speech'"),
        ({"prompt": "Which {bird}?"}, "asks for .'bird'., expected nothing"),
        ({"prompt": "Which {question}?"}, "asks for .'question'."),
        ({"prompt": "Which {bird?"}, "is no template"),
        ({"prompt": "In {lang!r}", "judge": "asr"}, "formats what it asks for"),
        ({"prompt": "In {lang:>9}", "judge": "asr"}, "formats what it asks for"),
        ({"prompt": "{lang.__class__}", "judge": "asr"}, "asks for .'lang.__class__'."),
        ({"prompt": " "}, "prompt is ' '"),
        ({"prompt": "What?", "judge": "qa"}, "has no {question}"),
        ({"prompt": None, "prompts": {"long": "Which?"}}, "prompts are of .'long'."),
        ({"prompts": {"": "Which?"}}, "has prompt and prompts"),
        ({"max_new_tokens": 0}, "birds.max_new_tokens is 0, expected greater than or equal to 1"),
        ({"published": {"m": "3"}}, "birds.published.m is '3', expected a number"),
        ({"published": {"m": True}}, "birds.published.m is True, expected a number"),
        ({"title": ""}, "birds.title is '', expected to have at least 1 character"),
        ({"group_by": 3}, "birds.group_by is 3, expected text"),
        ({"composed": "captions"}, "composed is 'captions', which makes no references for tagging"),
        ({"composed": "tags"}, "birds.composed is 'tags', expected 'event'"),
        ({"synonyms": {"crow": "raven"}}, "birds.synonyms.crow is 'raven', expected a list"),
    ],
)
def test_a_faulty_declaration_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read_language_tasks(declaration(**changes), "mine.json")
    assert "mine.json" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", r"holds \[\], expected a JSON object"),
        ("{}", "has no format"),
        ("nothing", "no readable JSON"),
        (
            '{"format": "auricle-language-tasks/2", "suites": []}',
            "format is .*, expected 'auricle-language-tasks/1'",
        ),
        ('{"format": "auricle-language-tasks/1", "suites": 3}', "suites is 3, expected a list"),
        ('{"format": "auricle-language-tasks/1", "suites": [{"suite": "a", "tasks": [], "odd": 1}]}', "unknown field"),
        ('{"format": "auricle-language-tasks/1", "suites": [{"suite": "a", "tasks": [1]}]}', r"tasks\[0\] is 1"),
        ('{"format": "x", "format": "y"}', "given twice"),
    ],
)
def test_what_is_no_declaration_is_refused(text, message):
    with pytest.raises(ConfigError, match=rf"mine\.json: .*{message}"):
        read_language_tasks(text, "mine.json")


def test_a_task_that_is_made_in_code_is_checked():
    for faulty in ({"kind": "wer"}, {"domain": "noise"}):
        (name,) = faulty
        with pytest.raises(ConfigError, match=f"task 'nsynth': {name} is .*, expected one of"):
            replace(load_language_task("nsynth"), **faulty)


def test_a_name_is_given_once():
    stored = json.loads(declaration())
    stored["suites"] *= 2
    with pytest.raises(ConfigError, match="birds is given twice"):
        read_language_tasks(json.dumps(stored), "mine.json")


def test_slots_of_a_template():
    assert slots("{question}\n{choices} {{not this}}") == {"question", "choices"}
    task = load_language_task("nsynth")
    with pytest.raises(ConfigError, match="asks for"):
        replace(task, prompts={"": "{}"})
    assert isinstance(task, LanguageTask)
