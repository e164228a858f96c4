"""Search a folder by words or by a clip.

The index is one file. Building it again encodes new files only. Needs `pip install 'auricle[align]'`.
"""

import tempfile
from pathlib import Path

import auricle
from auricle.search import Index, build_index

files = sorted(Path(__file__).parent.glob("*.ogg"))
aligner = auricle.load_aligner("auricle-tiny-glap")
with tempfile.TemporaryDirectory() as folder:
    build_index(aligner, files, f"{folder}/clips.auricle")
    index = Index.open(f"{folder}/clips.auricle")
    for words in ("an electronic alarm", "slow piano music", "a man is talking"):
        best = index.search(aligner.text([words]), k=1)[0]
        print(f"{words}: {Path(best.path).name}")
    like_piano = index.search(aligner.audio([files[1]]), k=2)
    print([Path(hit.path).name for hit in like_piano])
