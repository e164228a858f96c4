from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.data import prompts
from auricle.data.vocabulary import EVENTS, names_event
from auricle.errors import DataError
from auricle.evaluate.composed_questions import caption_references, closed_questions, event_label

FACTS = st.one_of(
    st.fixed_dictionaries({"kind": st.just("sound"), "event": st.sampled_from(sorted(EVENTS))}),
    st.fixed_dictionaries(
        {
            "kind": st.just("speech"),
            "text": st.sampled_from(["one", "two", "nine", "a sentence"]),
            "gender": st.sampled_from(["m", "f", None]),
        }
    ),
)
CLIPS = st.dictionaries(st.text(max_size=8), FACTS, max_size=30)


@given(CLIPS, st.randoms())
@settings(max_examples=60, deadline=None)
def test_questions_depend_on_names_and_facts_alone(clips, random):
    names = list(clips)
    random.shuffle(names)
    composed = closed_questions(clips)
    assert closed_questions({name: clips[name] for name in names}) == composed
    assert list(composed) == list(clips)
    letters = {}
    for name, own in composed.items():
        facts = clips[name]
        for each in own:
            right = each.choices["ABCD".index(each.answer)]
            assert len(set(each.choices)) == len(each.choices) > 1
            truths = {
                event_label(facts),
                facts["kind"],
                facts.get("text"),
                {"m": "male", "f": "female"}.get(facts.get("gender")),
            }
            assert right in truths
            assert len(truths & set(each.choices)) == 1
            letters.setdefault(each.question, Counter({letter: 0 for letter in "ABCD"[: len(each.choices)]}))
            letters[each.question][each.answer] += 1
    assert all(max(own.values()) - min(own.values()) <= 1 for own in letters.values())


def test_questions_on_each_kind_of_clip():
    clips = {
        "dog": {"kind": "sound", "event": "dog"},
        "cat": {"kind": "sound", "event": "cat"},
        "word": {"kind": "speech", "text": "two", "gender": "f"},
        "tune": {"kind": "music"},
        "odd": {"set": "none"},
    }
    composed = closed_questions(clips)
    assert [each.question for each in composed["word"]] == [
        prompts.DIGIT[0],
        prompts.GENDER[0],
        "What kind of audio is it?",
    ]
    assert set(composed["dog"][0].choices) == {"dog barking", "cat meowing"}
    assert len(composed["word"][0].choices) == 4
    assert [set(each.choices) for each in composed["tune"]] == [{"speech", "sound", "music"}]
    assert composed["odd"] == ()
    assert composed["tune"][0].question in prompts.CATEGORY


def test_an_event_that_is_the_only_one_makes_no_question():
    composed = closed_questions({"a": {"event": "dog"}, "b": {"event": "dog"}})
    assert composed == {"a": (), "b": ()}


def test_distractors_differ_from_clip_to_clip():
    clips = {f"clip {i}": {"event": event} for i in range(8) for event in [sorted(EVENTS)[i]]}
    clips |= {f"more {i}": {"event": "dog"} for i in range(40)}
    composed = closed_questions(clips)
    assert len({composed[f"more {i}"][0].choices for i in range(40)}) > 20


@pytest.mark.parametrize("event", [*EVENTS, "door_wood_knock"])
def test_captions_name_the_event(event):
    texts = caption_references({"event": event})
    assert 3 <= len(set(texts)) == len(texts)
    assert all(names_event(text, event) for text in texts)
    assert caption_references({"kind": "sound", "event": event, "fold": 3}) == texts


def test_captions_of_speech_and_music():
    speech = caption_references({"kind": "speech", "gender": "f", "language": "en", "text": "this is a whole sentence"})
    assert len(speech) == 5
    assert all("a woman" in text.lower() for text in speech)
    music = caption_references({"kind": "music", "instruments": ["piano"], "tempo": "slow"})
    assert all("piano" in text for text in music)


def test_what_has_one_wording_has_no_references():
    with pytest.raises(DataError, match="have 1 wordings, expected 3"):
        caption_references({"kind": "speech", "text": "two"})
    with pytest.raises(DataError, match="need a kind"):
        caption_references({"set": "mine"})


def test_labels_are_the_words_of_answers():
    assert event_label({"event": "crying_baby"}) == "baby crying"
    assert event_label({"event": "can_opening"}) == "can opening"
    assert event_label({"event": 3}) is None
    assert event_label({"event": "?"}) is None
