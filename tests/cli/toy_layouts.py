"""A data set of a few short sounds for every task of X-ARES and the challenge, as its authors publish it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

SONG = b"".join(
    (
        b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x01\xe0",  # one track, 480 ticks a quarter note of 0.5 s
        b"MTrk\x00\x00\x00\x0d\x00\x90\x3c\x40\x83\x60\x80\x3c\x00\x00\xff\x2f\x00",  # middle C for a quarter note
    )
)


def wave(root: Path, *names: str) -> None:
    """Sounds that differ from each other, 0.05 s at 8 kHz."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(list(name.encode()))
        soundfile.write(root / name, rng.uniform(-0.3, 0.3, 400), 8_000)


def text(root: Path, name: str, *lines: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def asvspoof2015(root: Path) -> None:
    for listing, name in (("cm_train.trn", "T1"), ("cm_develop.ndx", "D1"), ("cm_evaluation.ndx", "E1")):
        text(root, f"CM_protocol/{listing}", f"{name} {name}_1 human human", f"{name} {name}_2 S1 spoof")
        wave(root, f"wav/{name}/{name}_1.wav", f"wav/{name}/{name}_2.wav")


def cremad(root: Path) -> None:
    wave(root, *(f"AudioWAV/{actor}_DFA_{label}_XX.wav" for actor in (1001, 1014, 1077) for label in ("ANG", "SAD")))


def fluentspeechcommands(root: Path) -> None:
    for split in ("train", "valid", "test"):
        name = f"wavs/speakers/s1/{split}.wav"
        heading = ",path,speakerId,transcription,action,object,location"
        text(root, f"data/{split}_data.csv", heading, f'0,{name},s1,"Lights, on",activate,lights,none')
        wave(root, name)


def libricount(root: Path) -> None:
    wave(root, *(f"test/{count}_{name}.wav" for count in (0, 10) for name in "abcde"))


def librispeech(root: Path) -> None:
    text(root, "SPEAKERS.TXT", ";ID |SEX", "84 | F | x", "85 | M | x")
    for split, speaker in (("train-clean-100", 84), ("dev-clean", 85), ("test-clean", 85)):
        text(root, f"{split}/{speaker}/1/{speaker}-1.trans.txt", f"{speaker}-1-0 SAY {split}")
        wave(root, f"{split}/{speaker}/1/{speaker}-1-0.flac")


def ravdess(root: Path) -> None:
    wave(root, *(f"Actor_{actor:02d}/03-01-0{actor % 8 + 1}-01-01-01-{actor:02d}.wav" for actor in (1, 7, 13, 19)))


def speechcommandsv1(root: Path) -> None:
    wave(root, *(f"bed/{speaker}_nohash_0.wav" for speaker in "abc"))
    text(root, "validation_list.txt", "bed/b_nohash_0.wav")
    text(root, "testing_list.txt", "bed/c_nohash_0.wav")


def vocalimitations(root: Path) -> None:
    rows = ["\timitation_filename\treference_filename\tincluded\tparticipant_id"]
    for number in range(6):
        rows.append(
            f"{number}\t00{number % 2}Cat_ a-{number}.wav\t00{number % 2}Cat_reference.wav\tTrue\tp{number // 2}"
        )
        wave(root, f"vocal_imitations/included/00{number % 2}Cat_ a-{number}.wav")
    text(root, "vocal_imitations.txt", *rows)


def vocalsound(root: Path) -> None:
    for listing, speaker, label in (("tr", "f1", "cough"), ("val", "m2", "sigh"), ("te", "f3", "sniff")):
        text(root, f"meta/{listing}_meta.csv", f"{speaker},29,x")
        wave(root, f"audio_16k/{speaker}_0_{label}.wav")


def voxceleb1(root: Path) -> None:
    names = ("id1/video/1.wav", "id1/-x_/1.wav", "id2/y/1.wav")
    text(root, "iden_split.txt", *(f"{part} {name}" for part, name in enumerate(names, 1)))
    wave(root, *(f"wav/{name}" for name in names))


def voxlingua33(root: Path) -> None:
    wave(
        root, "dev/et/a__U__S0---1-2.wav", "dev/fi/b__U__S0---1-2.wav", "et/c__U__S0---1-2.wav", "fi/d__U__S0---1-2.wav"
    )


def clotho(root: Path) -> None:
    for split in ("development", "validation", "evaluation"):
        heading = "file_name," + ",".join(f"caption_{number}" for number in range(1, 6))
        text(root, f"clotho_captions_{split}.csv", heading, f'a b.{split}.wav,"Rain, falls",é,c,d,e')
        wave(root, f"{split}/a b.{split}.wav")


def desed(root: Path) -> None:
    text(root, "metadata/train/weak.tsv", "filename\tevent_labels", "y1.wav\tDog,Speech")
    heading = "filename\tonset\toffset\tevent_label"
    text(root, "metadata/validation/validation.tsv", heading, "y2.wav\t0.5\t1.5\tCat", "y3.wav\t\t\t")
    wave(root, "audio/train/weak/y1.wav", "audio/validation/y2.wav", "audio/validation/y3.wav")


def esc50(root: Path) -> None:
    names = [f"{fold}-{target}-A-{target}.wav" for fold in range(1, 6) for target in (0, 49)]
    rows = [f"{name},{name[0]},{name.split('-')[1]},dog,False" for name in names]
    text(root, "meta/esc50.csv", "filename,fold,target,category,esc10", *rows)
    wave(root, *(f"audio/{name}" for name in names))


def fsd50k(root: Path) -> None:
    text(root, "FSD50K.ground_truth/dev.csv", "fname,labels,mids,split", '1,"Bark,Dog",x,train', "2,Dog,x,val")
    text(root, "FSD50K.ground_truth/eval.csv", "fname,labels,mids", "3,Bark,x")
    wave(root, "FSD50K.dev_audio/1.wav", "FSD50K.dev_audio/2.wav", "FSD50K.eval_audio/3.wav")


def fsdkaggle2018(root: Path) -> None:
    for split, table in (("train", "train_post_competition"), ("test", "test_post_competition_scoring_clips")):
        text(root, f"FSDKaggle2018.meta/{table}.csv", "fname,label,x", f"{split}.wav,Hi-hat,0")
        wave(root, f"FSDKaggle2018.audio_{split}/{split}.wav")


def urbansound8k(root: Path) -> None:
    rows = [f"{fold}-3-0-0.wav,{fold},siren" for fold in range(1, 11)]
    text(root, "metadata/UrbanSound8K.csv", "slice_file_name,fold,class", *rows)
    wave(root, *(f"audio/fold{fold}/{fold}-3-0-0.wav" for fold in range(1, 11)))


def freemusicarchive(root: Path) -> None:
    rows = [f"{track},{split},small,Folk" for track, split in ((2, "training"), (140, "validation"), (3, "test"))]
    text(root, "fma_metadata/tracks.csv", ",set,set,track", ",split,subset,genre_top", "track_id,,,", *rows)
    wave(root, *(f"fma_small/000/{track:06d}.mp3" for track in (2, 140, 3)))


def gtzan_genre(root: Path) -> None:
    wave(root, *(f"{genre}/{genre}.{10 * fold:05d}.au" for fold in range(10) for genre in ("blues", "rock")))


def maestro(root: Path) -> None:
    rows = [f"{split},2018/{split}.midi,2018/{split}.wav" for split in ("train", "validation", "test")]
    text(root, "maestro-v3.0.0.csv", "split,midi_filename,audio_filename", *rows)
    for split in ("train", "validation", "test"):
        wave(root, f"2018/{split}.wav")
        (root / f"2018/{split}.midi").write_bytes(SONG)


def nsynthinstument(root: Path) -> None:
    for split in ("train", "valid", "test"):
        notes = {f"bass_{split}-0": {"instrument_family_str": "bass", "pitch": 33}}
        text(root, f"nsynth-{split}/examples.json", json.dumps(notes))
        wave(root, f"nsynth-{split}/audio/bass_{split}-0.wav")


def speechocean762(root: Path) -> None:
    for split, name in (("train", "0101"), ("test", "0201")):
        text(root, f"{split}/wav.scp", f"{name}\tWAVE/SPEAKER{name[:2]}/{name}.WAV")
        wave(root, f"WAVE/SPEAKER{name[:2]}/{name}.WAV")
    text(root, "resource/scores.json", json.dumps({name: {"accuracy": 8.0, "total": 7} for name in ("0101", "0201")}))


TOYS: dict[str, Callable[[Path], None]] = {
    maker.__name__: maker
    for maker in (
        asvspoof2015, cremad, fluentspeechcommands, libricount, librispeech, ravdess, speechcommandsv1, vocalimitations,
        vocalsound, voxceleb1, voxlingua33, clotho, desed, esc50, fsd50k, fsdkaggle2018, urbansound8k, freemusicarchive,
        gtzan_genre, maestro, nsynthinstument, speechocean762,
    )
}  # fmt: skip
TOYS |= {"librispeechmalefemale": librispeech, "nsynth_pitch": nsynthinstument}
