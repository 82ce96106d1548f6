"""Scripts arrive on servers as one self-contained text."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from managed.server_scripts import script_modules, script_source

SCRIPTS = ("take_backup", "install_system", "restore_system", "load_databases", "restore_files")
FED = ("receive_files", "survey_updates")
OLDEST_PYTHON_ON_SERVERS = (3, 9)


@pytest.mark.parametrize("name", SCRIPTS + FED)
def test_a_script_imports_the_standard_library_alone(name: str) -> None:
    tree = ast.parse(script_source(name))
    imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    imported |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}

    assert {str(module).partition(".")[0] for module in imported} <= sys.stdlib_module_names


@pytest.mark.parametrize("name", SCRIPTS + FED)
def test_modules_of_a_script_define_no_name_twice(name: str) -> None:
    defined = Counter(
        each for text in script_modules(name).values() for each in set(top_level_names(text))
    )

    assert [each for each, count in defined.items() if count > 1] == []


def top_level_names(text: str) -> list[str]:
    names = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
    return names


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_starts_outside_of_the_project(name: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(script_source(name), encoding="utf-8")
    environment = {"MANAGED_RUN_DIR": str(tmp_path), "PATH": ""}
    argv = (sys.executable, "-I", str(script), "{}")
    ended = subprocess.run(argv, capture_output=True, env=environment, cwd=tmp_path, check=False)

    assert ended.returncode != 0
    assert b"NameError" not in ended.stderr
    assert b'"ok": false' in (tmp_path / "result.json").read_bytes()


@pytest.mark.parametrize("name", ["take_backup", "load_databases", "restore_files", *FED])
def test_scripts_for_servers_of_customers_keep_to_old_syntax(name: str) -> None:
    ast.parse(script_source(name), feature_version=OLDEST_PYTHON_ON_SERVERS)


def test_an_unknown_script_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        script_source("no_such_script")
