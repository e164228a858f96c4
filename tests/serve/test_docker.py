"""The container files: they parse, and the commands in them are commands of Auricle."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from auricle.cli.main import app

DOCKER = Path(__file__).resolve().parents[2] / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())


def commands() -> list[list[str]]:
    found = [service["command"] for service in COMPOSE["services"].values() if "auricle" in service.get("command", ())]
    for file in sorted(DOCKER.glob("*.Dockerfile")):
        found += [json.loads(line) for line in re.findall(r"^CMD (\[.*\])$", file.read_text(), re.MULTILINE)]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_commands_are_those_of_the_program(command: list[str]) -> None:
    name, verb, *options = command
    assert (name, verb) == ("auricle", "serve")
    serve = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    serve.make_context("serve", list(options), resilient_parsing=False)


def test_there_are_three() -> None:
    assert len(commands()) == 3


def test_what_is_named_is_there() -> None:
    build = COMPOSE["services"]["auricle"]["build"]
    assert (DOCKER / build["context"] / build["dockerfile"]).is_file()
    assert (DOCKER / "Caddyfile").read_text().count("{") == (DOCKER / "Caddyfile").read_text().count("}")
    served = COMPOSE["services"]["vllm"]["command"]
    asked = COMPOSE["services"]["auricle"]["command"]
    assert served[served.index("--model") + 1] == asked[asked.index("--model") + 1]
    assert f":{served[served.index('--port') + 1]}/v1" in asked[asked.index("--upstream") + 1]
    assert set(COMPOSE["services"]["auricle"]["secrets"]) == set(COMPOSE["secrets"])
