"""Scripts that run on servers and in rescue sessions, sent there as text.

Each is one self-contained file of standard-library Python when it arrives. Here it is made of
modules: `script_source` puts a script and the modules that it imports from this project into one
text. What several scripts share, and what the domain decides, is written once and tested here.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib import resources
from typing import Final

FUTURE: Final = "from __future__ import annotations\n"
SENDABLE: Final = ("managed.server_scripts.", "managed.domain.")


@cache
def script_source(name: str) -> str:
    """The whole text of a script such as "take_backup", ready to be written and executed.

    Modules come before what imports them; top-level names must not clash (a test looks).
    Raises FileNotFoundError when there is no such script.
    """
    modules: dict[str, str] = {}
    _collect(f"managed.server_scripts.{name}", modules)
    parts = [f"# --- {module}\n{text}" for module, text in modules.items()]
    return "#!/usr/bin/env python3\n" + FUTURE + "\n\n".join(parts)


def script_modules(name: str) -> dict[str, str]:
    """The modules of a script, in order: full name to text without the project's imports."""
    modules: dict[str, str] = {}
    _collect(f"managed.server_scripts.{name}", modules)
    return modules


def _collect(module: str, modules: dict[str, str]) -> None:
    package, _, name = module.rpartition(".")
    source = (resources.files(package) / f"{name}.py").read_text(encoding="utf-8")
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        is_ours = node.module.startswith(SENDABLE)
        if is_ours and node.module not in modules:
            _collect(node.module, modules)
        if is_ours or node.module == "__future__":
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    modules[module] = "\n".join(lines).removeprefix("#!/usr/bin/env python3\n") + "\n"
