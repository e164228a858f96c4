import json
import unicodedata
import zipfile

import pytest

from auricle.bench.task import load_task
from auricle.data.downloads import RemoteFile, bytes_left, unpack
from auricle.data.upstream import LAYOUTS, read_layout
from auricle.data.upstream_tables import inside
from auricle.errors import ConfigError, DataError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def put(root, name, text):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def rows(name, root):
    """(id, place of the audio, facts) of each entry."""
    return [(entry.id, entry.audio.relative_to(root).as_posix(), entry.meta) for entry in read_layout(name, root)]


def test_esc50(tmp_path):
    put(
        tmp_path,
        "meta/esc50.csv",
        "filename,fold,target,category,esc10,src_file,take\n1-7-A-0.wav,1,0,dog,True,7,A\n2-8-A-9.wav,2,9,crow,False,8,A\n",
    )
    assert rows("esc50", tmp_path) == [
        ("1-7-A-0", "audio/1-7-A-0.wav", {"label": 0, "category": "dog", "fold": 1, "esc10": "True"}),
        ("2-8-A-9", "audio/2-8-A-9.wav", {"label": 9, "category": "crow", "fold": 2, "esc10": "False"}),
    ]


def test_fsdd_sessions_are_runs_of_indices(tmp_path):
    touch(tmp_path, *(f"recordings/{digit}_theo_{index}.wav" for digit in (0, 7) for index in range(10)))
    found = rows("fsdd", tmp_path)
    assert found[0] == ("0_theo_0", "recordings/0_theo_0.wav", {"digit": "zero", "speaker": "theo", "session": 0})
    assert {facts["session"] for name, _, facts in found if name.endswith(("_8", "_9"))} == {4}
    assert [sum(facts["session"] == session for _, _, facts in found) for session in range(5)] == [4] * 5


def test_speechocean762_parts_share_no_speaker(tmp_path):
    for split, speakers in (("train", range(10)), ("test", range(20, 22))):
        lines = [
            {"id": f"{speaker:04d}{i:02d}", "audio": f"{speaker}-{i}.ogg", "text": "A B", "speaker": f"{speaker:04d}"}
            for speaker in speakers
            for i in reversed(range(10))
        ]
        put(tmp_path, f"{split}.jsonl", "".join(json.dumps({**line, "gender": "f", "age": 7}) + "\n" for line in lines))
    found = rows("speechocean762", tmp_path)
    speakers = {part: {f["speaker"] for _, _, f in found if f["part"] == part} for part in ("train", "valid", "test")}
    assert speakers["valid"] == {"0004", "0009"}
    assert len(speakers["train"]) == 8 and len(speakers["test"]) == 2
    assert {f["split"] for _, _, f in found if f["part"] == "valid"} == {"train"}
    sessions = {name: facts["session"] for name, _, facts in found}
    assert [sessions[f"0000{i:02d}"] for i in range(10)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_speechocean762_scores(tmp_path):
    put(tmp_path, "train/wav.scp", "0101\tWAVE/SPEAKER01/0101.WAV\n")
    put(tmp_path, "test/wav.scp", "0201 WAVE/SPEAKER02/0201.WAV\n")
    scores = {"0101": {"accuracy": 8, "fluency": 9, "words": []}, "0201": {"accuracy": 5}}
    put(tmp_path, "resource/scores.json", json.dumps(scores))
    assert rows("speechocean762_scores", tmp_path) == [
        ("0101", "WAVE/SPEAKER01/0101.WAV", {"accuracy": 8, "fluency": 9, "split": "train"}),
        ("0201", "WAVE/SPEAKER02/0201.WAV", {"accuracy": 5, "split": "test"}),
    ]
    put(tmp_path, "test/wav.scp", "0301 x.wav\n")
    with pytest.raises(DataError, match="has no scores of '0301'"):
        read_layout("speechocean762_scores", tmp_path)


def test_crema_d(tmp_path):
    touch(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1014_IEO_HAP_HI.wav", "AudioWAV/notes.txt")
    touch(tmp_path, "AudioWAV/1077_IEO_NEU_XX.wav")
    assert rows("crema_d", tmp_path) == [
        ("1001_DFA_ANG_XX", "AudioWAV/1001_DFA_ANG_XX.wav", {"label": "A", "speaker": "1001", "part": "train"}),
        ("1014_IEO_HAP_HI", "AudioWAV/1014_IEO_HAP_HI.wav", {"label": "H", "speaker": "1014", "part": "valid"}),
        ("1077_IEO_NEU_XX", "AudioWAV/1077_IEO_NEU_XX.wav", {"label": "N", "speaker": "1077", "part": "test"}),
    ]


def test_ravdess(tmp_path):
    touch(tmp_path, "Actor_01/03-01-06-01-02-01-01.wav", "Actor_24/03-01-08-01-02-01-24.wav")
    touch(tmp_path, "Actor_01/03-02-06-01-02-01-01.wav", "Actor_01/01-01-06-01-02-01-01.mp4")  # song, and a film
    assert [facts for _, _, facts in rows("ravdess", tmp_path)] == [
        {"emotion": "fearful", "speaker": "01", "fold": 0},
        {"emotion": "surprised", "speaker": "24", "fold": 3},
    ]


def test_gtzan(tmp_path):
    touch(tmp_path, "blues/blues.00009.wav", "rock/rock.00099.au", "rock/blues.00001.wav", "rock/rock.1.wav")
    assert rows("gtzan", tmp_path) == [
        ("blues.00009", "blues/blues.00009.wav", {"genre": "blues", "fold": 0}),
        ("rock.00099", "rock/rock.00099.au", {"genre": "rock", "fold": 9}),
    ]


def test_urbansound8k(tmp_path):
    put(
        tmp_path,
        "metadata/UrbanSound8K.csv",
        "slice_file_name,fsID,start,end,salience,fold,classID,class\n100032-3-0-0.wav,100032,0.0,0.3,1,5,3,dog_bark\n",
    )
    assert rows("urbansound8k", tmp_path) == [
        ("100032-3-0-0", "audio/fold5/100032-3-0-0.wav", {"soundevent": "dog_bark", "fold": "5"})
    ]


def test_speech_commands(tmp_path):
    touch(tmp_path, *(f"bed/{speaker}_nohash_0.wav" for speaker in ("a1", "b2", "c3")), "_background_noise_/tap.wav")
    put(tmp_path, "validation_list.txt", "bed/b2_nohash_0.wav\n")
    put(tmp_path, "testing_list.txt", "bed/c3_nohash_0.wav\n")
    assert [(name, facts["labels"], facts["split"]) for name, _, facts in rows("speech_commands", tmp_path)] == [
        ("bed/a1_nohash_0", "bed", "train"),
        ("bed/b2_nohash_0", "bed", "valid"),
        ("bed/c3_nohash_0", "bed", "test"),
    ]


def test_vocalsound(tmp_path):
    touch(tmp_path, "audio_16k/f0003_0_laughter.wav", "audio_16k/m0002_0_sniff.wav")
    for name, line in (("tr", "f0003,29,female\n"), ("val", "\n"), ("te", "m0002,40,male\n")):
        put(tmp_path, f"meta/{name}_meta.csv", line)
    assert [facts for _, _, facts in rows("vocalsound", tmp_path)] == [
        {"label": "laughter", "speaker": "f0003", "split": "train"},
        {"label": "sniff", "speaker": "m0002", "split": "test"},
    ]
    touch(tmp_path, "audio_16k/m0009_0_cough.wav")
    with pytest.raises(DataError, match="'m0009' is in none of the lists"):
        read_layout("vocalsound", tmp_path)


def test_libricount(tmp_path):
    touch(tmp_path, *(f"test/{count}_{name}.wav" for count in (0, 10) for name in "abcdef"), "test/0_a.json")
    found = rows("libricount", tmp_path)
    assert len(found) == 12
    assert [facts["fold"] for _, _, facts in found if facts["num_speakers"] == 10] == [0, 1, 2, 3, 4, 0]


def test_librispeech(tmp_path):
    put(tmp_path, "SPEAKERS.TXT", ";ID  |SEX| SUBSET\n84   | F | dev-clean        | 25.1 | Christie Nowak\n")
    put(tmp_path, "dev-clean/84/121123/84-121123.trans.txt", "84-121123-0000 GO DO YOU HEAR\n")
    assert rows("librispeech", tmp_path) == [
        (
            "84-121123-0000",
            "dev-clean/84/121123/84-121123-0000.flac",
            {"trans": "GO DO YOU HEAR", "speaker": "84", "gender": "F", "split": "dev-clean"},
        )
    ]


def test_nsynth(tmp_path):
    for split in ("valid", "test"):
        note = {"instrument_family_str": "bass", "pitch": 33, "velocity": 25}
        put(tmp_path, f"nsynth-{split}/examples.json", json.dumps({f"bass_{split}": note}))
    assert rows("nsynth", tmp_path) == [
        (f"bass_{s}", f"nsynth-{s}/audio/bass_{s}.wav", {"instrument_family_str": "bass", "pitch": 33, "split": s})
        for s in ("valid", "test")
    ]


def test_fma_small(tmp_path):
    put(
        tmp_path,
        "fma_metadata/tracks.csv",
        ",album,set,set,track,track\n,title,split,subset,genre_top,title\ntrack_id,,,,,\n"
        '2,"A, B",training,small,Hip-Hop,Food\n3,A,training,large,,Drink\n140,C,validation,small,Folk,"a\nb"\n',
    )
    assert rows("fma_small", tmp_path) == [
        ("000002", "fma_small/000/000002.mp3", {"genre": "Hip-Hop", "split": "train"}),
        ("000140", "fma_small/000/000140.mp3", {"genre": "Folk", "split": "valid"}),
    ]
    put(tmp_path, "fma_metadata/tracks.csv", "a,b\n")
    with pytest.raises(DataError, match="lacks the columns"):
        read_layout("fma_small", tmp_path)


def test_fsd50k(tmp_path):
    put(
        tmp_path,
        "FSD50K.ground_truth/dev.csv",
        'fname,labels,mids,split\n64760,"Guitar,Music",/m/1,train\n9,Dog,/m/2,val\n',
    )
    put(tmp_path, "FSD50K.ground_truth/eval.csv", "fname,labels,mids\n37199,Bark,/m/3\n")
    assert rows("fsd50k", tmp_path) == [
        ("64760", "FSD50K.dev_audio/64760.wav", {"soundevent": "Guitar;Music", "split": "train"}),
        ("9", "FSD50K.dev_audio/9.wav", {"soundevent": "Dog", "split": "valid"}),
        ("37199", "FSD50K.eval_audio/37199.wav", {"soundevent": "Bark", "split": "test"}),
    ]


def test_clotho(tmp_path):
    heading = "file_name," + ",".join(f"caption_{number}" for number in range(1, 6))
    for split in ("development", "validation", "evaluation"):
        put(tmp_path, f"clotho_captions_{split}.csv", f'{heading}\n{split} 1.wav,"a, b",c,d,e,f\n')
    assert rows("clotho", tmp_path)[1] == (
        "validation/validation 1",
        "validation/validation 1.wav",
        {"captions": ["a, b", "c", "d", "e", "f"], "split": "clotho_validation"},
    )


def test_desed(tmp_path):
    put(tmp_path, "metadata/train/weak.tsv", "filename\tevent_labels\nY1.wav\tDog,Speech\n")
    put(
        tmp_path,
        "metadata/validation/validation.tsv",
        "filename\tonset\toffset\tevent_label\nY2.wav\t0.5\t1.5\tCat\nY2.wav\t2.0\t10.0\tDog\nY3.wav\t\t\t\n",
    )
    events = [{"onset": 0.5, "offset": 1.5, "label": "Cat"}, {"onset": 2.0, "offset": 10.0, "label": "Dog"}]
    weak = [{"onset": 0.0, "offset": 10.0, "label": "Dog,Speech"}]
    assert rows("desed", tmp_path) == [
        ("weak/Y1", "audio/train/weak/Y1.wav", {"events": weak, "split": "train"}),
        ("validation/Y2", "audio/validation/Y2.wav", {"events": events, "split": "test"}),
        ("validation/Y3", "audio/validation/Y3.wav", {"events": [], "split": "test"}),
    ]


def test_hear(tmp_path):
    put(tmp_path, "task_metadata.json", json.dumps({"splits": ["fold00", "fold01"]}))
    put(tmp_path, "fold00.json", json.dumps({"a.wav": ["dog"], "b.wav": []}))
    put(tmp_path, "fold01.json", json.dumps({"c.wav": [{"label": "x", "start": 0, "end": 5}]}))
    touch(tmp_path, "48000/fold00/a.wav", "16000/fold00/a.wav")
    assert rows("hear", tmp_path) == [
        ("fold00/a.wav", "16000/fold00/a.wav", {"labels": ["dog"], "split": "fold00"}),
        ("fold00/b.wav", "16000/fold00/b.wav", {"labels": [], "events": [], "split": "fold00"}),
        ("fold01/c.wav", "16000/fold01/c.wav", {"events": [{"label": "x", "start": 0, "end": 5}], "split": "fold01"}),
    ]


def test_fsdkaggle2018(tmp_path):
    meta = "FSDKaggle2018.meta"
    put(
        tmp_path,
        f"{meta}/train_post_competition.csv",
        "fname,label,manually_verified,freesound_id,license\n00044347.wav,Hi-hat,0,28739,Attribution\n",
    )
    put(
        tmp_path,
        f"{meta}/test_post_competition_scoring_clips.csv",
        "fname,label,usage,freesound_id,license\n00326446.wav,Saxophone,Public,1,CC0\n",
    )
    assert rows("fsdkaggle2018", tmp_path) == [
        ("00044347", "FSDKaggle2018.audio_train/00044347.wav", {"sound": "Hi-hat", "split": "train"}),
        ("00326446", "FSDKaggle2018.audio_test/00326446.wav", {"sound": "Saxophone", "split": "test"}),
    ]


def test_maestro(tmp_path):
    heading = "canonical_composer,canonical_title,split,year,midi_filename,audio_filename,duration\n"
    put(tmp_path, "maestro-v1.0.0.csv", f"{heading}A,B,train,2004,gone.midi,gone.wav,1\n")
    put(
        tmp_path,
        "maestro-v3.0.0.csv",
        f'{heading}Berg,"Sonata, Op. 1",validation,2018,2018/a--1.midi,2018/a--1.wav,2.5\n',
    )
    track = b"".join(
        (
            b"\x00\x90\x15\x40",  # the lowest key, half a second at 480 ticks a quarter note
            b"\x00\x90\x6c\x40",  # 108: the highest of a piano, no class of the task
            b"\x83\x60\x80\x15\x00\x00\x80\x6c\x00\x00\xff\x2f\x00",
        )
    )
    (tmp_path / "2018").mkdir()
    (tmp_path / "2018/a--1.midi").write_bytes(
        b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x01\xe0MTrk" + len(track).to_bytes(4, "big") + track
    )
    events = [{"start": 0.0, "end": 0.5, "note": 21}]
    assert rows("maestro", tmp_path) == [("a--1", "2018/a--1.wav", {"events": events, "left_out": 1, "split": "valid"})]
    (tmp_path / "2018/a--1.midi").write_bytes(b"no song")
    with pytest.raises(DataError, match=r"a--1\.midi is no usable MIDI file"):
        read_layout("maestro", tmp_path)


@pytest.mark.parametrize("suffix", ["", ".txt"])
def test_asvspoof2015(tmp_path, suffix):
    put(tmp_path, f"CM_protocol/cm_train.trn{suffix}", "T1 T1_1000001 human human\nT1 T1_1001238 S1 spoof\n")
    put(tmp_path, f"CM_protocol/cm_develop.ndx{suffix}", "D1 D1_1000001 S5 spoof\n")
    put(tmp_path, f"CM_protocol/cm_evaluation.ndx{suffix}", "E1 E1_1000001 S10 spoof\n")
    found = rows("asvspoof2015", tmp_path)
    assert found[1] == (
        "T1_1001238",
        "wav/T1/T1_1001238.wav",
        {"binary_spoof": "spoof", "attack": "S1", "speaker": "T1", "split": "train"},
    )
    assert [(facts["binary_spoof"], facts["split"]) for _, _, facts in found] == [
        ("human", "train"),
        ("spoof", "train"),
        ("spoof", "valid"),
        ("spoof", "test"),
    ]
    put(tmp_path, f"CM_protocol/cm_develop.ndx{suffix}", "\nD1 D1_1000001 spoof\n")
    with pytest.raises(DataError, match=r"cm_develop\.ndx.*, line 1: 3 fields, expected 4"):
        read_layout("asvspoof2015", tmp_path)


def test_fluent_speech_commands(tmp_path):
    for split in ("train", "valid", "test"):
        put(
            tmp_path,
            f"data/{split}_data.csv",
            ",path,speakerId,transcription,action,object,location\n"
            f'0,wavs/speakers/2B/{split}.wav,2B,"Pause, please",deactivate,music,none\n',
        )
    intent = {"action": "deactivate", "object": "music", "location": "none"}
    assert rows("fluent_speech_commands", tmp_path) == [
        (
            f"wavs/speakers/2B/{split}",
            f"wavs/speakers/2B/{split}.wav",
            {"transcription": "Pause, please", "speaker": "2B", "split": split, **intent},
        )
        for split in ("train", "valid", "test")
    ]


def test_voxceleb1(tmp_path):
    put(
        tmp_path,
        "iden_split.txt",
        "1 id10003/na8-QEFmj44/00003.wav\n2 id10003/_7JUzYPoBDo/1.wav\n3 id10004/-a/1.wav\n",
    )
    assert rows("voxceleb1", tmp_path) == [
        (f"{name}", f"wav/{name}.wav", {"speakerid": name[:7], "split": split})
        for name, split in (
            ("id10003/na8-QEFmj44/00003", "train"),
            ("id10003/_7JUzYPoBDo/1", "valid"),
            ("id10004/-a/1", "test"),
        )
    ]
    put(tmp_path, "iden_split.txt", "4 id10003/a/1.wav\n")
    with pytest.raises(DataError, match=r"part '4' of .* expected 1, 2 or 3"):
        read_layout("voxceleb1", tmp_path)


@pytest.mark.parametrize("train", ["", "train/"])
def test_voxlingua107(tmp_path, train):
    touch(tmp_path, "dev/et/v1__U__S2---0001.000-0009.000.wav", "dev/fi/v2__U__S0---0001.000-0002.000.wav")
    touch(tmp_path, f"{train}et/v1__U__S7---0100.000-0104.000.wav", f"{train}et/v3__U__S0---0001.000-0009.000.wav")
    touch(tmp_path, f"{train}ab/v4__U__S0---0001.000-0009.000.wav")  # a language without sounds in dev
    assert [(name, facts) for name, _, facts in rows("voxlingua107", tmp_path)] == [
        ("train/et/v3__U__S0---0001.000-0009.000", {"labels": "et", "split": "train"}),
        ("dev/et/v1__U__S2---0001.000-0009.000", {"labels": "et", "split": "dev"}),
        ("dev/fi/v2__U__S0---0001.000-0002.000", {"labels": "fi", "split": "dev"}),
    ]


def test_vocal_imitations_keep_a_participant_in_one_fold(tmp_path):
    lines = ["\timitation_filename\treference_filename\tincluded\tparticipant_id\tsound"]
    given = {"p1": 5, "p2": 4, "p3": 3, "p4": 2, "p5": 1}
    for participant, clips in given.items():
        for number in range(clips):
            name = f"000Cat_{participant}-{number}.wav"
            lines.append(f'{len(lines)}\t{name}\t{number:03d}Cat_reference.wav\tTrue\t{participant}\t"a ""cat"""')
    lines.append("99\tdraft.wav\t000Cat_reference.wav\tFalse\tp1\t")
    put(tmp_path, "vocal_imitations.txt", "\n".join(lines) + "\n")
    found = rows("vocal_imitations", tmp_path)
    assert found[0] == (
        "000Cat_p1-0",
        "vocal_imitations/included/000Cat_p1-0.wav",
        {"imitation": "000Cat_reference", "speaker": "p1", "fold": 0},
    )
    folds = {facts["speaker"]: facts["fold"] for _, _, facts in found}
    assert folds == {"p1": 0, "p2": 1, "p3": 2, "p4": 2, "p5": 1}
    assert len(found) == 15 and all(facts["fold"] == folds[facts["speaker"]] for _, _, facts in found)


@pytest.mark.parametrize(
    ("layout", "task"),
    [
        ("fsdkaggle2018", "fsdkaggle2018"),
        ("maestro", "maestro"),
        ("asvspoof2015", "asvspoof2015"),
        ("fluent_speech_commands", "fluentspeechcommands"),
        ("voxceleb1", "voxceleb1"),
        ("voxlingua107", "voxlingua33"),
        ("vocal_imitations", "vocalimitations"),
    ],
)
def test_facts_are_those_of_the_task(layout, task):
    """A layout says in its docstring which fact bears the label; it is the one the task reads."""
    _, _, facts = " ".join(LAYOUTS[layout].__doc__.split()).partition("Facts: ")
    assert facts.startswith(load_task(task).label.field)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_an_empty_folder_says_what_was_expected(tmp_path, name):
    with pytest.raises(DataError, match=r"expected|no manifest|in the layout"):
        read_layout(name, tmp_path)
    with pytest.raises(DataError):
        read_layout(name, tmp_path / "gone")


def test_an_unknown_layout():
    with pytest.raises(ConfigError, match="no layout 'audioset'; expected one of asvspoof2015, clotho"):
        read_layout("audioset", ".")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../b", "a\nb"])
def test_a_table_cannot_point_out_of_the_folder(tmp_path, name):
    put(tmp_path, "metadata/UrbanSound8K.csv", f'slice_file_name,fold,class\n"{name}",1/../..,dog_bark\n')
    with pytest.raises(DataError, match="not a file below"):
        read_layout("urbansound8k", tmp_path)
    put(tmp_path, "maestro-v3.0.0.csv", f'split,midi_filename,audio_filename\ntrain,"{name}",a.wav\n')
    with pytest.raises(DataError, match="not a file below"):
        read_layout("maestro", tmp_path)
    put(tmp_path, "task_metadata.json", json.dumps({"splits": ["train"]}))
    put(tmp_path, "train.json", json.dumps({name: ["x"]}))
    (tmp_path / "16000").mkdir()
    with pytest.raises(DataError, match="not a file below"):
        read_layout("hear", tmp_path)


def test_a_table_that_is_none(tmp_path):
    for text, message in (
        ("a,b\n1,2\n", "expected .* among them"),
        ("slice_file_name,fold,class\na.wav,1\n", "row 2: 2 cells under 3"),
    ):
        put(tmp_path, "metadata/UrbanSound8K.csv", text)
        with pytest.raises(DataError, match=message):
            read_layout("urbansound8k", tmp_path)
    (tmp_path / "metadata/UrbanSound8K.csv").write_bytes(b"\xff\xfe,\n")
    with pytest.raises(DataError, match="not a table in UTF-8"):
        read_layout("urbansound8k", tmp_path)
    for text in ("{", "[]"):
        put(tmp_path, "nsynth-valid/examples.json", text)
        with pytest.raises(DataError, match=r"not valid JSON|expected an object"):
            read_layout("nsynth", tmp_path)


@pytest.mark.parametrize("name", ["می\u200cخواهم.wav", "10.04\u202fAM.wav", "日本\u3000語.wav", "👩\u200d🚒.wav"])
def test_tables_and_archives_name_files_of_all_languages(tmp_path, name):
    assert inside(tmp_path, name) == tmp_path / name
    file = RemoteFile(name, "https://example.org/x", 9, "0" * 32)
    assert bytes_left([file], tmp_path) == 9
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, b"x")
    assert (unpack(tmp_path / "a.zip", tmp_path / "out") / name).read_bytes() == b"x"


@pytest.mark.parametrize("name", ["a\x1bb.wav", "a\u202eb.wav", "a\u2028b.wav", "a\udcffb.wav"])
def test_tables_name_no_control_characters(tmp_path, name):
    with pytest.raises(DataError, match="is not a file below"):
        inside(tmp_path, name)


def test_a_table_names_files_in_either_form_of_their_accents(tmp_path):
    names = [unicodedata.normalize(form, "café.wav") for form in ("NFC", "NFD")]
    (tmp_path / names[1]).touch()
    assert inside(tmp_path, names[0]) == tmp_path / names[1]
