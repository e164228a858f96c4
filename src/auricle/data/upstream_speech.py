"""Layouts of published speech data sets: spoofing, commands, speakers, languages, vocal imitations.

They follow the rules of `auricle.data.upstream`, where they are registered.
"""

from collections import defaultdict
from pathlib import Path

from auricle.data.manifest import Entry
from auricle.data.upstream_tables import inside, read_fields, read_table
from auricle.errors import DataError

_LISTS = {"train": "cm_train.trn", "valid": "cm_develop.ndx", "test": "cm_evaluation.ndx"}
_IDENTIFICATION = {"1": "train", "2": "valid", "3": "test"}
_IMITATION_FOLDS = 3


def asvspoof2015(root: Path) -> list[Entry]:
    """ASVspoof 2015: ``CM_protocol/cm_{train.trn,develop.ndx,evaluation.ndx}`` and ``wav/``. Facts: binary_spoof.

    The names of the lists may end in ``.txt``. ``attack`` is human, or S1 to S10.

    Source: doi.org/10.7488/ds/298.
    """
    entries = []
    for split, listing in _LISTS.items():
        path = root / "CM_protocol" / listing
        path = path if path.exists() else path.with_name(f"{listing}.txt")
        for speaker, name, attack, verdict in read_fields(path, 4):
            facts = {"binary_spoof": verdict, "attack": attack, "speaker": speaker, "split": split}
            entries.append(Entry(name, inside(root / "wav", f"{speaker}/{name}.wav"), facts))
    return entries


def fluent_speech_commands(root: Path) -> list[Entry]:
    """Fluent Speech Commands: ``data/{train,valid,test}_data.csv`` and ``wavs/``. Facts: transcription, and the intent.

    Source: L. Lugosch et al., "Speech Model Pre-training for End-to-End Spoken Language Understanding", 2019.
    """
    slots = ("action", "object", "location")
    entries = []
    for split in ("train", "valid", "test"):
        table = root / "data" / f"{split}_data.csv"
        for row in read_table(table, "path", "speakerId", "transcription", *slots):
            facts = {"transcription": row["transcription"], "speaker": row["speakerId"], "split": split}
            facts |= {slot: row[slot] for slot in slots}
            entries.append(Entry(row["path"].removesuffix(".wav"), inside(root, row["path"]), facts))
    return entries


def voxceleb1(root: Path) -> list[Entry]:
    """VoxCeleb1: ``iden_split.txt`` and, of both parts together, ``wav/{speaker}/{video}/``. Facts: speakerid.

    Source: the identification split of robots.ox.ac.uk/~vgg/data/voxceleb.
    """
    entries = []
    for part, name in read_fields(root / "iden_split.txt", 2):
        if part not in _IDENTIFICATION:
            raise DataError(f"{root}/iden_split.txt: part {part!r} of {name!r}, expected 1, 2 or 3")
        facts = {"speakerid": name.partition("/")[0], "split": _IDENTIFICATION[part]}
        entries.append(Entry(name.removesuffix(".wav"), inside(root / "wav", name), facts))
    return entries


def voxlingua107(root: Path) -> list[Entry]:
    """VoxLingua107: ``dev/{language}/``, and ``{language}/`` in the folder or in ``train/``. Facts: labels, a language.

    Only the languages of dev, 33 of them, are read, and of train no video that is in dev. The subset of train that
    X-ARES uses was not published; here it is all of train.

    Source: J. Valk and T. Alumäe, "VoxLingua107: a Dataset for Spoken Language Recognition", 2021.
    """
    train = root / "train" if (root / "train").is_dir() else root
    found = {"dev": sorted((root / "dev").glob("*/*.wav"))}
    videos = {_video(path) for path in found["dev"]}
    spoken = sorted({path.parent.name for path in found["dev"]})
    files = (path for language in spoken for path in sorted((train / language).glob("*.wav")))
    found["train"] = [path for path in files if _video(path) not in videos]
    return [
        Entry(f"{split}/{path.parent.name}/{path.stem}", path, {"labels": path.parent.name, "split": split})
        for split in ("train", "dev")
        for path in found[split]
    ]


def _video(path: Path) -> str:
    """The video that a segment ``{video}__U__S{number}---{start}-{end}.wav`` was cut from."""
    return path.stem.partition("__U__")[0]


def vocal_imitations(root: Path) -> list[Entry]:
    """Vocal Imitation Set: ``vocal_imitations.txt`` and ``vocal_imitations/included/``. Facts: imitation, fold 0 to 2.

    The label is the recording that was imitated. The authors give no folds; those of HEAR, which X-ARES has, were made
    by clip. Here a participant is in one fold: the one with the fewest clips, those who gave most being assigned first.

    Source: zenodo.org/records/1340763.
    """
    columns = ("imitation_filename", "reference_filename", "included", "participant_id")
    rows = [
        row for row in read_table(root / "vocal_imitations.txt", *columns, delimiter="\t") if row["included"] == "True"
    ]
    given: dict[str, int] = defaultdict(int)
    for row in rows:
        given[row["participant_id"]] += 1
    clips, fold = [0] * _IMITATION_FOLDS, {}
    for participant in sorted(given, key=lambda participant: (-given[participant], participant)):
        fold[participant] = clips.index(min(clips))
        clips[fold[participant]] += given[participant]
    entries = []
    for row in rows:
        where = inside(root / "vocal_imitations" / "included", row["imitation_filename"])
        facts = {"imitation": row["reference_filename"].removesuffix(".wav"), "speaker": row["participant_id"]}
        entries.append(Entry(where.stem, where, {**facts, "fold": fold[row["participant_id"]]}))
    return entries
