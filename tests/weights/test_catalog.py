"""Names → places, without a network: the hub's cache is a folder made here."""

import hashlib
from pathlib import Path

import pytest

from auricle.errors import UnknownModel, UnsafeWeights, WeightsError
from auricle.models.dasheng import Dasheng
from auricle.weights import catalog, entries, load_dasheng, resolve, safe, save_dasheng

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cached(tmp_path: Path, tiny: Dasheng) -> Path:
    """`mispeech/dasheng-base` as the hub's cache keeps it: blobs by hash, snapshots of links, named revisions."""
    save_dasheng(tmp_path / "made", tiny)
    repo = tmp_path / "hub" / "models--mispeech--dasheng-base"
    snapshot = repo / "snapshots" / COMMIT
    for folder in (repo / "blobs", repo / "refs", snapshot):
        folder.mkdir(parents=True)
    for file in (tmp_path / "made").iterdir():
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(repo / "blobs" / digest)
        (snapshot / file.name).symlink_to(Path("../../blobs") / digest)
    (repo / "refs" / "main").write_text(COMMIT)
    (repo / "refs" / "v1").write_text(COMMIT)
    return snapshot


@pytest.mark.parametrize("name", ["dasheng-base", "mispeech/dasheng-base", "Dasheng-Base"])
@pytest.mark.parametrize("revision", [None, "main", "v1", COMMIT])
def test_published_names_offline(cached: Path, name: str, revision: str | None) -> None:
    source = resolve(name, revision=revision)
    assert source.path.resolve() == cached.resolve()
    assert (source.name, source.revision) == (name, COMMIT)
    assert catalog.fingerprint(source) == hashlib.sha256((cached / "model.safetensors").read_bytes()).hexdigest()


def test_a_published_encoder_loads_from_the_cache(cached: Path, tiny: Dasheng) -> None:
    assert load_dasheng("dasheng-base", revision=COMMIT).config == tiny.config
    assert catalog.is_ready(next(e for e in entries() if e.name == "dasheng-base"))
    assert not catalog.is_ready(next(e for e in entries() if e.name == "dasheng-1.2b"))


def test_cache_folder_as_an_argument(cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert resolve("dasheng-base", offline=True, cache_dir=tmp_path / "hub").revision == COMMIT


@pytest.mark.parametrize("name", ["dasheng-1.2b", "mispeech/midashenglm-7b", "someone/else"])
def test_absent_from_the_cache(name: str) -> None:
    with pytest.raises(WeightsError, match="not in the local cache and offline mode is on; run `hf download"):
        resolve(name)


def test_revision_absent_from_the_cache(cached: Path) -> None:
    with pytest.raises(WeightsError, match=f"mispeech/dasheng-base@{OTHER}: not in the local cache"):
        resolve("dasheng-base", revision=OTHER)


@pytest.mark.parametrize(
    ("gone", "message"), [("config.json", "has no config"), ("model.safetensors", "no .safetensors")]
)
def test_incomplete_snapshots_are_no_models(cached: Path, gone: str, message: str) -> None:
    (cached / gone).unlink()
    with pytest.raises(WeightsError, match=message):
        resolve("dasheng-base")


def test_only_data_is_fetched(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    requested: dict[str, object] = {}

    def download(repo: str, **settings: object) -> str:
        requested.update(settings, repo=repo)
        return str(cached)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    resolve("mispeech/dasheng-0.6B", revision="v2")
    found = (requested["repo"], requested["revision"], requested["local_files_only"])
    assert found == ("mispeech/dasheng-0.6B", "v2", False)
    patterns = requested["allow_patterns"]
    assert isinstance(patterns, list) and patterns
    for name in ("modeling.py", "pytorch_model.bin", "weights.pt", "run.sh"):
        assert not any(Path(name).match(pattern) for pattern in patterns)
    for name in ("config.json", "model-00001-of-00004.safetensors", "merges.txt", "chat_template.jinja"):
        assert any(Path(name).match(pattern) for pattern in patterns)


@pytest.mark.parametrize(("error", "expected"), [("OSError", WeightsError), ("RepositoryNotFoundError", UnknownModel)])
def test_failed_downloads(monkeypatch: pytest.MonkeyPatch, error: str, expected: type[Exception]) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    def download(repo: str, **settings: object) -> str:
        if error == "OSError":
            raise OSError("disk full")
        # Its constructor wants the response of whichever HTTP client the hub's library uses.
        raise errors.RepositoryNotFoundError.__new__(errors.RepositoryNotFoundError)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(expected, match=r"disk full|did you mean"):
        resolve("mispeech/dasheng-small", offline=False)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("auricle-tny", "auricle-tiny"),
        ("dasheng-bse", "dasheng-base"),
        ("midashenglm7b", "midashenglm-7b"),
        ("x.pt", "aur"),
    ],
)
def test_unknown_names_list_near_ones(name: str, near: str) -> None:
    with pytest.raises(UnknownModel, match=f"'{name}' is no model name.*{near}"):
        resolve(name)


def test_folders_and_files(tmp_path: Path, zenodo_file: Path, lm_folder: Path) -> None:
    assert resolve(zenodo_file).path == zenodo_file
    assert resolve(str(lm_folder)).path == lm_folder
    source = resolve(lm_folder)
    assert source.revision is None
    assert catalog.fingerprint(source) == safe.sha256(lm_folder / "model.safetensors")
    with pytest.raises(UnknownModel, match="is no model name, folder or file"):
        resolve(tmp_path / "absent" / "model.safetensors")


@pytest.mark.parametrize("place", ["", "blobs", "models--a--b/blobs"])
def test_a_link_named_by_a_hash_is_not_believed(
    tmp_path: Path, lm_folder: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the cache itself names files by their hashes."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    real = (lm_folder / "model.safetensors").read_bytes()
    forged = tmp_path / place / ("0" * 64)
    forged.parent.mkdir(parents=True, exist_ok=True)
    forged.write_bytes(real)
    folder = tmp_path / "models--a--b" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "model.safetensors").symlink_to(forged)
    assert catalog.fingerprint(resolve(folder)) == hashlib.sha256(real).hexdigest()


def test_large_local_weights_are_not_hashed(lm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "MAX_HASHED_BYTES", 1000)
    assert catalog.fingerprint(resolve(lm_folder)) is None


def test_embedded_models_are_verified(tmp_path: Path, tiny: Dasheng, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_embedded", lambda entry: tmp_path / "embedded" / entry.name)
    with pytest.raises(UnknownModel, match="recipes/tiny"):
        resolve("auricle-tiny-encoder")
    folder = save_dasheng(tmp_path / "embedded" / "auricle-tiny-encoder", tiny, dtype="float16")
    safe.write_checksums(folder)
    model = load_dasheng("auricle-tiny-encoder")
    assert model.norm.weight.dtype == model.init_bn.weight.dtype == safe.torch.float32
    assert catalog.is_ready(next(e for e in entries() if e.name == "auricle-tiny-encoder"))
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    with pytest.raises(UnsafeWeights, match="SHA-256"):
        load_dasheng("auricle-tiny-encoder")


def test_pinned_hashes_are_enforced(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    pinned = tuple(replace(e, sha256="0" * 64) if e.repo else e for e in entries())
    monkeypatch.setattr(catalog, "ENTRIES", pinned)
    with pytest.raises(UnsafeWeights, match="expected 000"):
        resolve("dasheng-base")


def test_entries_are_sound() -> None:
    names = [entry.name for entry in entries()]
    assert len(names) == len(set(names))
    assert {"auricle-tiny", "auricle-tiny-encoder", "dasheng-base", "dasheng-0.6b", "dasheng-1.2b"} <= set(names)
    for entry in entries():
        assert entry.license and entry.summary and (entry.repo is None or entry.parameters)
