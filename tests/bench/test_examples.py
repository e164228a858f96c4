import io
import json
import tarfile

import numpy as np
import pytest
import soundfile

from auricle.bench.examples import class_names, class_numbers, load_examples
from auricle.bench.task import load_task
from auricle.errors import DataError


def noise(seed=0, num_samples=1600):
    return np.random.default_rng(seed).uniform(-0.3, 0.3, num_samples).astype(np.float32)


def encoded(seed=0, kind="WAV"):
    file = io.BytesIO()
    soundfile.write(file, noise(seed), 16_000, format=kind, subtype="PCM_16")
    return file.getvalue()


def tar(path, rows):
    with tarfile.open(path, "w:") as out:
        for key, label, audio in rows:
            for name, contents in ((f"{key}.wav", audio), (f"{key}.json", json.dumps(label).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(contents)
                out.addfile(member, io.BytesIO(contents))


def manifest(folder, rows, name="manifest.jsonl"):
    for row in rows:
        if not (folder / row["audio"]).exists():
            (folder / row["audio"]).write_bytes(encoded(len(row["audio"])))
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def esc10(folder, names=("dog", "rain")):
    (folder / "meta").mkdir()
    (folder / "audio").mkdir()
    lines = ["filename,fold,target,category,esc10"]
    for fold in (1, 2, 3, 4, 5):
        for number, name in enumerate((*names, "hen")):
            lines.append(f"{fold}-{number}.wav,{fold},{number},{name},{name != 'hen'}")
            (folder / f"audio/{fold}-{number}.wav").write_bytes(encoded(10 * fold + number))
    (folder / "meta/esc50.csv").write_text("\n".join(lines) + "\n")


def test_official_tars(tmp_path):
    for fold in range(1, 6):
        rows = [(f"clip{i}", {"label": i}, encoded(i)) for i in (2 * fold, 2 * fold + 1)]
        tar(tmp_path / f"wds-audio-fold-{fold}-000000.tar", rows)
    tar(tmp_path / "wds-audio-fold-1-000001.tar", [("clip2", {"label": 49}, encoded(9)), ("odd", {"label": 50}, b"")])
    found = load_examples(load_task("esc50"), tmp_path)
    assert {fold: len(examples) for fold, examples in found.by_split.items()} == {
        "1": 3,
        "2": 2,
        "3": 2,
        "4": 2,
        "5": 2,
    }
    ids = [example.id for example in found]
    assert ids[:3] == [
        "1/wds-audio-fold-1-000000/clip2",
        "1/wds-audio-fold-1-000000/clip3",
        "1/wds-audio-fold-1-000001/clip2",
    ]
    assert len(set(ids)) == len(found) == 11
    assert found.by_split["1"][0].source() == encoded(2)
    assert [name for name, _ in found.refused] == ["1/wds-audio-fold-1-000001/odd"]
    with pytest.raises(DataError, match=r"1 clips were refused: .*label is 50, which is none of the 50 classes"):
        found.check()
    names = class_names(found)
    assert names[:2] == ("0", "1")
    assert class_numbers(found.task, names, found.by_split["2"][1]) == [5]


def test_tars_whose_json_is_no_object(tmp_path):
    events = [{"onset": 0.5, "offset": 1, "label": "Dog"}]
    for split in ("train", "eval"):
        tar(tmp_path / f"wds-audio-{split}0.tar", [("a", events, encoded()), ("b", [], encoded(1))])
    found = load_examples(load_task("desed"), tmp_path)
    assert len(found) == 4 and not found.refused
    assert class_numbers(found.task, class_names(found), found.by_split["wds-audio-eval"][0]) == [8]
    for split in ("development", "evaluation", "validation"):
        tar(tmp_path / f"clotho_{split}_0.tar", [("a", {"caption_1": "a dog", "caption_2": "dogs"}, encoded())])
    (example,) = load_examples(load_task("clotho"), tmp_path).by_split["clotho_validation"]
    assert load_task("clotho").label.values(example.label) == ("a dog", "dogs")
    tar(tmp_path / "train0.tar", [("a", "cough", encoded())])
    tar(tmp_path / "valid0.tar", [("a", {"label": "cough"}, encoded())])
    tar(tmp_path / "test0.tar", [("a", {"label": "sigh"}, encoded())])
    assert len(load_examples(load_task("vocalsound"), tmp_path)) == 3


def test_an_upstream_layout(tmp_path):
    esc10(tmp_path)
    found = load_examples(load_task("esc10"), tmp_path)
    assert [len(examples) for examples in found.by_split.values()] == [2, 2, 2, 2]
    assert found.unused == {"esc10 is False": 5, "fold is 5": 2}
    assert found.by_split["2"][0].id == "2/2-0"
    assert len(load_examples(load_task("esc50"), tmp_path)) == 15
    (tmp_path / "audio/3-0.wav").unlink()
    found = load_examples(load_task("esc10"), tmp_path)
    assert found.refused[0].name == "3/3-0" and "no audio at" in found.refused[0].reason


def test_a_manifest_of_the_user(tmp_path):
    rows = [
        {"id": f"{split}{i}", "audio": f"{split}{i}.wav", "split": split, "labels": label}
        for split in ("train", "test")
        for i, label in enumerate(("Inside", "Outside"))
    ]
    rows += [{"audio": "x.wav", "split": "spare", "labels": "Inside"}, {"audio": "y.wav", "labels": "Inside"}]
    rows += [{"audio": "z.wav", "split": "test", "labels": "Under"}, {"audio": "w.wav", "split": "train"}]
    manifest(tmp_path, rows)
    found = load_examples(load_task("inside_outside_car"), tmp_path)
    assert [example.id for example in found] == [
        "inside_outside_car_train/train0",
        "inside_outside_car_train/train1",
        "inside_outside_car_test/test0",
        "inside_outside_car_test/test1",
    ]
    assert found.unused == {"split is spare": 1}
    assert [name for name, _ in found.refused] == ["y", "inside_outside_car_test/z", "inside_outside_car_train/w"]
    csv = "id,audio,split,position\n" + "".join(f"{i},train0.wav,{s},Inside\n" for i, s in enumerate(("train", "test")))
    (tmp_path / "mine.csv").write_text(csv)
    assert len(load_examples(load_task("inside_outside_car"), tmp_path / "mine.csv")) == 2


def test_derived_classes(tmp_path):
    rows = [
        {"audio": f"{i}.wav", "split": "test" if i == 28 else "train", "labels": f"c{min(i, 28):02d}"}
        for i in range(29)
    ]
    manifest(tmp_path, rows)
    found = load_examples(load_task("liveenv"), tmp_path)
    names = class_names(found)
    assert names == tuple(f"c{i:02d}" for i in range(28))
    assert class_numbers(found.task, names, found.by_split["liveenv_test"][0]) == [-1]
    manifest(tmp_path, rows[3:])
    with pytest.raises(DataError, match="has 28 classes, but the training examples have 25"):
        class_names(load_examples(load_task("liveenv"), tmp_path))


def test_an_empty_split_is_an_error(tmp_path):
    manifest(tmp_path, [{"audio": "a.wav", "split": "train", "position": "Inside"}])
    with pytest.raises(DataError, match="no examples of inside_outside_car_test"):
        load_examples(load_task("inside_outside_car"), tmp_path)


def test_a_folder_without_the_task(tmp_path):
    with pytest.raises(DataError, match=r"expected the tars wds-audio-fold-1-\*\.tar or .* or manifest\.jsonl"):
        load_examples(load_task("esc50"), tmp_path / "gone")
    with pytest.raises(DataError, match="no manifest at"):  # an empty folder is taken for the authors' layout
        load_examples(load_task("esc50"), tmp_path)
    with pytest.raises(DataError, match="holds no data of task 'liveenv'"):
        load_examples(load_task("liveenv"), tmp_path)


def test_only_classifications_have_classes(tmp_path):
    manifest(tmp_path, [{"audio": f"{s}.wav", "split": s, "labels": "a"} for s in ("train", "valid", "test")])
    with pytest.raises(DataError, match="is asr; it has no classes"):
        class_names(load_examples(load_task("speechocean762_asr"), tmp_path))
