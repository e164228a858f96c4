"""Fine-tune on your own questions.

Low-rank updates of the decoder, on a CPU, in seconds. A real run takes hundreds of rows and keeps some of them apart,
see `recipes/sft`. This one only shows the steps: it learns four clips by heart.
"""

import json
import tempfile
from pathlib import Path

import auricle
from auricle.train import load_config, run

CLIPS = Path(__file__).parent.resolve()
QUESTION = "Which drawer does it belong to?"
ANSWERS = {"alarm": "signals", "piano": "instruments", "two_voices": "voices", "voice": "voices"}

with tempfile.TemporaryDirectory() as folder:
    rows = [{"audio": f"{CLIPS / name}.ogg", "prompt": QUESTION, "answer": answer} for name, answer in ANSWERS.items()]
    Path(folder, "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = [f"sft.train=[{folder}/rows.jsonl]", f"out={folder}/run", "steps=40", "lr=0.003"]
    changes += ["batch_size=4", "precision=fp32"]
    run(load_config(CLIPS.parent / "recipes" / "sft" / "lora.yaml", changes))
    for name in ("auricle-tiny", f"{folder}/run/model"):
        model = auricle.load(name)
        print(
            "after" if folder in name else "before",
            [str(model.ask(CLIPS / f"{clip}.ogg", QUESTION)) for clip in ANSWERS],
        )
