"""Classify clips zero-shot.

The aligner embeds clips and texts into one space; the label whose text is nearest wins. No label was trained on.
Needs `pip install 'auricle[align]'`.
"""

from pathlib import Path

import auricle
from auricle.encode import Prompts, classify

aligner = auricle.load_aligner("auricle-tiny-glap")
prompts = Prompts(templates=("{label}", "the sound of {label}"))
for file in sorted(Path(__file__).parent.glob("*.ogg")):
    found = classify(aligner, file, ["an alarm", "a piano", "a person speaking"], prompts=prompts)
    best = max(found.scores, key=found.scores.__getitem__)
    print(f"{file.name:22} {best:18} {found.scores[best]:.1f}")
