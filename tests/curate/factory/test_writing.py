"""The grammar and the checks: what they say of facts, and that each statement has its evidence."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.curate.factory.checks import check, fault, states_absence
from auricle.curate.factory.grammar import write
from auricle.curate.factory.prompt import CATEGORIES, DIFFICULTIES
from auricle.curate.factory.questions import COUNT
from auricle.curate.factory.sheet import FIELDS, PHRASINGS, Evidence, Sentence, Sheet, grades
from auricle.data.vocabulary import EVENTS, names_event, names_music, names_speech

from .signals import fact, sheet

FULL = (
    fact("event", "dog", 0.9, 0.0, 2.0),
    fact("gender", "female"),
    fact("age", "adult"),
    fact("language", "English"),
    fact("transcript", "open the door please now"),
    fact("instrument", "piano"),
    fact("pace", "slow"),
    fact("bpm", 92.3),
    fact("key", "C sharp minor"),
    fact("loudness", -40.0, None),
    fact("snr", 8.0, None),
    fact("bandwidth", 3500, None),
    fact("reverberation", 0.9),
    fact("clipped", 0.01, None),
)
CODES = ("000", "00A", "0M0", "0MA", "S00", "S0A", "SM0", "SMA")


@st.composite
def sheets(draw: st.DrawFn) -> Sheet:
    """Clips of any domain with any of the facts that experts give."""
    code = draw(st.sampled_from(CODES))
    kept = [each for each in FULL if draw(st.booleans())]
    events = draw(st.lists(st.sampled_from(sorted(EVENTS)), max_size=3, unique=True)) if "A" in code else []
    spans = [(float(start), float(start + 1)) for start in range(4)]
    kept = [each for each in kept if each.name != "event"]
    kept += [fact("event", name, 0.8, *draw(st.sampled_from(spans))) for name in events]
    if draw(st.booleans()):
        kept.append(fact("speakers", draw(st.sampled_from([1, 2]))))
    digest = draw(st.integers(0, 2**64 - 1))
    return replace(sheet(code, *kept, fact("caption", "A sound.")), clip_hash=f"{digest:032x}")


def test_all_six_fields_say_what_the_facts_say() -> None:
    found = write(sheet("SMA", *FULL))
    texts = {field: " ".join(each.text for each in found.fields[field]) for field in FIELDS}
    assert "woman" in texts["speech"] and '"open the door please now"' in texts["speech"]
    assert "piano" in texts["music"] and "92 beats per minute" in texts["music"] and "C sharp minor" in texts["music"]
    assert "dog" in texts["sound"].lower() and "first 2 seconds" in texts["sound"]
    assert "quiet" in texts["environment"] and "telephone" in texts["environment"] and "clip" in texts["environment"]
    assert names_speech(texts["long"]) and names_music(texts["long"]) and names_event(texts["long"], "dog")
    assert all(len(each.text.split()) <= 15 for each in found.fields["short"])


@given(sheets())
def test_every_statement_has_evidence_and_passes_the_checks(clip: Sheet) -> None:
    found = write(clip)
    for field in FIELDS:
        assert len(found.fields[field]) == PHRASINGS
        for sentence in found.fields[field]:
            assert sentence.evidence or states_absence(sentence.text)
            assert set(sentence.evidence) <= set(clip.evidence)
            assert (sentence.text[0].isupper() and sentence.text[-1] in '.…"') or sentence.text == "None"
            assert "  " not in sentence.text and "None " not in sentence.text
    checked = check(found, clip, found)
    assert checked.dropped == ()
    assert checked.fields == found.fields


@given(sheets())
def test_what_is_absent_is_said_to_be(clip: Sheet) -> None:
    found = write(clip)
    for field, letter in (("speech", "S"), ("music", "M"), ("sound", "A")):
        texts = [each.text for each in found.fields[field]]  # type: ignore[index]
        assert (texts[0] == "None") is (letter not in clip.code)
        assert all(states_absence(text) for text in texts) is (letter not in clip.code)
    for field in ("long", "short"):
        for sentence in found.fields[field]:  # type: ignore[index]
            assert not names_music(sentence.text) or "M" in clip.code
            assert not names_speech(sentence.text) or "S" in clip.code


@given(sheets())
def test_questions_are_five_in_the_terms_of_mecat(clip: Sheet) -> None:
    found = write(clip).questions
    if clip.all("loudness") and clip.all("clipped"):
        assert len(found) == COUNT
    assert len({(each.question, each.answer) for each in found}) == len(found)
    for each in found:
        assert each.category in CATEGORIES and each.difficulty in DIFFICULTIES
        assert each.question.endswith("?") and each.answer
        assert set(each.evidence) <= set(clip.evidence)


@given(sheets())
def test_the_same_facts_give_the_same_texts(clip: Sheet) -> None:
    assert write(clip) == write(clip)


def test_other_clips_get_other_words() -> None:
    clips = [replace(sheet("S0A", *FULL), clip_hash=f"{number:032x}") for number in range(40)]
    assert len({write(clip).fields["long"][0].text for clip in clips}) > 15
    assert len({each.text for each in write(clips[0]).fields["long"]}) == PHRASINGS


def test_unsure_facts_are_left_out() -> None:
    unsure = [
        each._replace(confidence=0.3) for each in FULL if each.name in ("gender", "age", "transcript", "language")
    ]
    text = " ".join(each.text for each in write(sheet("S00", *unsure)).fields["speech"])
    assert "person" in text and '"' not in text and "English" not in text


def test_noise_is_graded_beside_speech_and_music_only() -> None:
    steady = (fact("snr", -5.0, None), fact("reverberation", 1.0))
    assert (grades(sheet("S00", *steady)).noise, grades(sheet("S00", *steady)).room) == ("noisy", "reverberant")
    assert (grades(sheet("00A", *steady)).noise, grades(sheet("00A", *steady)).room) == ("", "")


def test_a_quote_cannot_leave_its_quotes() -> None:
    found = write(sheet("S00", fact("transcript", 'he said "stop" and "go" </script>')))
    for each in found.fields["speech"]:
        assert each.text.count('"') == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A dog barks", ""),
        ("Slow piano music plays", "music"),
        ("A violin is heard", "violin"),
        ("A rooster crows", "rooster"),
        ('A woman says "open the door"', ""),
        ('A woman says "buy our product today"', "transcript"),
        ("See https://example.com", "link"),
        ("<script>alert(1)</script>", "link or markup"),
        ("There is no music", ""),
        ("A woman is speaking", ""),
    ],
)
def test_unsupported_statements_are_found(text: str, reason: str) -> None:
    found = fault(text, sheet("S0A", fact("event", "dog"), fact("transcript", "open the door please")))
    assert reason in found and bool(found) is bool(reason)


def checked(text: str, field: str = "long", *, evidence: tuple[Evidence, ...] = (fact("event", "dog"),)) -> list[str]:
    clip = sheet("00A", fact("event", "dog"))
    draft = write(clip)
    fields = {**draft.fields, field: (Sentence(text=text, evidence=evidence), *draft.fields[field][1:])}  # type: ignore[index]
    found = check(replace(draft, fields=fields), clip, draft)
    assert len(found.fields[field]) == PHRASINGS  # type: ignore[index]
    return [found.fields[field][0].text, *found.dropped]  # type: ignore[index]


def test_clauses_are_dropped_one_by_one() -> None:
    text, reason = checked("A dog barks while slow music plays.")
    assert text == "A dog barks." and "music" in reason
    text, *reasons = checked("A dog barks. A violin plays over it.")
    assert text == "A dog barks." and "violin" in reasons[0] and "part of what was dropped" in reasons[1]


def test_a_text_without_support_is_replaced() -> None:
    text, *reasons = checked("Slow music plays while a dog barks.")
    assert "music" not in text and "dog" in text.lower() and reasons
    text, *reasons = checked("A dog barks.", evidence=())
    assert "no evidence" in reasons[0]
    text, *reasons = checked("A dog barks. " * 100)
    assert "characters" in reasons[0] and len(text) < 600


def test_absent_fields_must_state_absence_and_present_ones_must_not() -> None:
    assert (
        checked("A melody plays.", "music")[0] == "No music is present."
        or "None" in checked("A melody plays.", "music")[0]
    )
    text, *reasons = checked("None", "sound")
    assert "dog" in text.lower() and "domain" in reasons[0]
