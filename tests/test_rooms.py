"""The rules that can be read off the source: who imports whom, what is never called, how long a thing may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "auricle"

# From the ground up. An import may only point to a smaller number; rooms on one floor do not know each other.
FLOORS = {
    "errors": 0,
    "cores": 0,
    "files": 1,
    "audio": 2,
    "data": 3,
    "models": 4,
    "weights": 5,
    "metrics": 6,
    "pages": 7,
    "engine": 8,
    "encode": 9,
    "denoise": 10,
    "listen": 10,
    "search": 11,
    "auricle": 12,  # the package's public surface: offers what the rooms below it hold
    "train": 13,
    "bench": 13,
    "evaluate": 13,
    "curate": 13,
    "serve": 14,
    "cli": 15,
    "__main__": 16,
}
NESTED = {  # the only folders within a room
    ("curate", "factory"),
    ("listen", "other_models"),
    ("models", "encoders"),
    ("weights", "vocoders"),
}
ROOM_FILES = 25
PARAMETERS = 9  # outside cli/, where each parameter is an option of a verb
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}
FORBIDDEN_PACKAGES = {"torchaudio", "pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
# A keyword argument with this value hands control to whoever wrote the file that is being read.
FORBIDDEN_ARGUMENTS = {("trust_remote_code", True), ("weights_only", False), ("allow_pickle", True)}
MODULE_LINES = 600
FUNCTION_LINES = 80


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    """The room a source file lives in; `auricle` for the package's own `__init__`."""
    parts = path.relative_to(SOURCE).parts
    if len(parts) > 1:
        return parts[0]
    return "auricle" if parts[0] == "__init__.py" else path.stem


def imported(tree: ast.AST, path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a module imports, relative and string imports resolved."""
    package = ["auricle", *path.relative_to(SOURCE).parent.parts]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{stem}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and callee(node) in {"import_module", "__import__"} and node.args:
            target = node.args[0]
            if isinstance(target, ast.Constant) and isinstance(target.value, str):
                yield node.lineno, target.value


def callee(node: ast.Call) -> str:
    """The last name of what is called: `load` for `torch.load(...)`."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def import_faults(source: str, path: Path) -> list[str]:
    here = room_of(path)
    faults = []
    for line, name in imported(ast.parse(source), path):
        root, _, rest = name.partition(".")
        if root in FORBIDDEN_PACKAGES:
            faults.append(f"line {line}: imports {root}")
        if root != "auricle" or rest == "__version__":
            continue
        there = rest.split(".")[0] if rest.split(".")[0] in FLOORS else "auricle"
        if there != here and FLOORS[there] >= FLOORS[here]:
            faults.append(f"line {line}: {here} imports {name}; imports point down")
    return faults


def safety_faults(source: str) -> list[str]:
    faults = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        for keyword in node.keywords:
            if isinstance(keyword.value, ast.Constant) and (keyword.arg, keyword.value.value) in FORBIDDEN_ARGUMENTS:
                faults.append(f"line {node.lineno}: {keyword.arg}={keyword.value.value}")
        if callee(node) in {"eval", "exec"} and isinstance(node.func, ast.Name):
            faults.append(f"line {node.lineno}: {callee(node)}()")
        if ast.unparse(node.func) == "torch.load" and not any(k.arg == "weights_only" for k in node.keywords):
            faults.append(f"line {node.lineno}: torch.load without weights_only=True")
    return faults


def length_faults(source: str) -> list[str]:
    faults = []
    if (lines := len(source.splitlines())) > MODULE_LINES:
        faults.append(f"module of {lines} lines")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                faults.append(f"line {node.lineno}: {node.name} has {lines} lines")
    return faults


def parameter_faults(source: str, path: Path) -> list[str]:
    if room_of(path) == "cli":
        return []
    faults = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            named = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            count = len(named) - (named[:1] in (["self"], ["cls"]))
            if count > PARAMETERS:
                faults.append(f"line {node.lineno}: {node.name} has {count} parameters")
    return faults


def name_faults(path: Path) -> list[str]:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    faults = [f"{part} says nothing about its content" for part in parts if part in FORBIDDEN_NAMES]
    if len(parts) > 2 and not (len(parts) == 3 and parts[:2] in NESTED):
        faults.append(f"{path} lies deeper than room/file")
    if room_of(path) not in FLOORS:
        faults.append(f"{parts[0]} is not a room")
    return faults


def test_the_source_is_found() -> None:
    assert SOURCE / "errors.py" in modules()
    assert {room_of(path) for path in modules()} >= {
        "audio",
        "data",
        "models",
        "weights",
        "encode",
        "listen",
        "train",
        "cli",
    }


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_module_keeps_the_rules(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    faults = [*name_faults(path), *import_faults(source, path), *safety_faults(source), *length_faults(source)]
    faults += parameter_faults(source, path)
    assert not faults, f"{path.relative_to(SOURCE)}: " + "; ".join(faults)


@pytest.mark.parametrize("folder", sorted({path.parent for path in modules()}), ids=lambda folder: folder.name)
def test_a_room_is_small_enough_to_survey(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= ROOM_FILES


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("audio/decode.py", "from auricle.models import dasheng"),
        ("audio/decode.py", "from ..models.dasheng import DashengEncoder"),
        ("audio/decode.py", "from auricle import listen"),
        ("audio/decode.py", "def f():\n    import auricle.data.shards"),
        ("encode/encoder.py", "import auricle"),
        ("encode/encoder.py", "from auricle import load"),
        ("models/dasheng.py", "import importlib\nimportlib.import_module('auricle.cli.main')"),
        ("train/loop.py", "from auricle.evaluate.scores import Scored"),
        ("evaluate/report.py", "if TYPE_CHECKING:\n    from auricle.train import loop"),
        ("data/shards.py", "import torchaudio"),
        ("data/shards.py", "from pickle import load"),
        ("errors.py", "from auricle.audio import limits"),
        ("__init__.py", "from auricle.train.loop import fit"),
    ],
)
def test_a_wrong_import_is_seen(room: str, source: str) -> None:
    assert import_faults(source, SOURCE / room)


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("models/dasheng.py", "from auricle.audio.logmel import LogMel\nfrom .blocks import Block"),
        ("train/loop.py", "from auricle import __version__\nfrom auricle.errors import TrainingError"),
        ("cli/main.py", "import auricle\nfrom auricle.train import loop\nfrom auricle.evaluate import report"),
        ("__init__.py", "from auricle.listen.loading import load"),
    ],
)
def test_a_right_import_passes(room: str, source: str) -> None:
    assert import_faults(source, SOURCE / room) == []


@pytest.mark.parametrize(
    "source",
    [
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "torch.load(path, weights_only=False)",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
    ],
)
def test_an_unsafe_call_is_seen(source: str) -> None:
    assert safety_faults(source)


def test_safe_calls_pass() -> None:
    assert safety_faults("torch.load(path, weights_only=True)\nmodel.eval()\nnp.load(path, allow_pickle=False)") == []


def test_what_is_too_long_or_misnamed_is_seen() -> None:
    assert length_faults("x = 1\n" * (MODULE_LINES + 1))
    assert length_faults("def f():\n" + "    x = 1\n" * FUNCTION_LINES)
    assert length_faults("def f():\n" + "    x = 1\n" * (FUNCTION_LINES - 1)) == []
    many = ", ".join(f"a{i}" for i in range(PARAMETERS))
    assert parameter_faults(f"def f({many}, last): ...", SOURCE / "audio" / "decode.py")
    assert parameter_faults(f"def f(self, {many}): ...", SOURCE / "audio" / "decode.py") == []
    assert parameter_faults(f"def f({many}, last): ...", SOURCE / "cli" / "embed.py") == []
    for path in ("audio/utils.py", "audio/deep/down.py", "kitchen/sink.py"):
        assert name_faults(SOURCE / path)
