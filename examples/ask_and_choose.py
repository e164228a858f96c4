"""Ask and choose.

`ask` generates an answer; with `choices` it can only be one of them. `choose` compares the likelihood of each choice
as a whole answer, and returns the probabilities.
"""

from pathlib import Path

import auricle

CLIPS = Path(__file__).parent

model = auricle.load("auricle-tiny")
print(model.ask(CLIPS / "two_voices.ogg", "Is the speaker male or female?"))
print(model.ask(CLIPS / "alarm.ogg", "What kind of audio is it?", choices=["speech", "music", "sound"]))

choice = model.choose(CLIPS / "voice_over_piano.ogg", "What kind of audio is it?", ["speech", "music", "sound"])
for odds in choice.odds:
    print(f"{odds.text:8} {odds.probability:.2f}")

questions = ["Is someone speaking?", "Is there any music?", "How many speakers are there?"]
for answer in model.ask_all(CLIPS / "voice_over_piano.ogg", questions):  # the clip is encoded once for all questions
    print(answer.text)
