"""Import layers of the package: no cycle between rooms, few layers, public names declared.

A room is a module or package directly below `src/fireopd`. Imports under `TYPE_CHECKING` count.
"""

import ast
from functools import cache
from graphlib import TopologicalSorter

import pytest
from helpers.paths import ROOT

SOURCE = ROOT / "src" / "fireopd"
CALLBACKS = ROOT / "callbacks"
MOST_ROOMS, MOST_LAYERS, MOST_LINES, MOST_FUNCTION_LINES = 24, 11, 300, 60
LAYERS = [
    {"errors", "moved_paths", "private_apis", "progress"},
    {"atomic_files", "types"},
    {"distributed", "reductions"},
    {"models"},
    {"engines", "filters", "objectives", "verifiers", "weighters"},
    {"algorithm", "prompts", "teachers"},
    {"method", "plans"},
    {"testing", "training"},
    {"analysis"},
    {"callbacks"},
    {"cli"},
]
"""Rooms from the lowest layer to the highest: a room imports from lower layers only."""
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def files():
    """Return the Python files of the package and the room of each."""
    own = [path for path in SOURCE.rglob("*.py") if path.relative_to(SOURCE).parts[0] != "callbacks"]
    rooms = {path: path.relative_to(SOURCE).with_suffix("").parts[0] for path in own}
    return rooms | dict.fromkeys(CALLBACKS.glob("*.py"), "callbacks")


@cache
def imports():
    """Return (room, imported room, place) of each import of fireopd in fireopd."""
    found = []
    for path, room in files().items():
        if room.startswith("__"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                deep = node.module != "fireopd"
                modules = [node.module] if deep else [f"fireopd.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module" and node.args:
                text = node.args[0]
                modules = [text.value] if isinstance(text, ast.Constant) and isinstance(text.value, str) else []
            else:
                continue
            for module in modules:
                parts = module.split(".")
                if parts[0] == "fireopd" and len(parts) > 1 and parts[1] != room:
                    found.append((room, parts[1], f"{path.relative_to(ROOT)}:{node.lineno}"))
    return found


def test_there_are_few_rooms():
    rooms = {room for room in files().values() if not room.startswith("__")}
    assert rooms == set(LEVEL), "name new rooms in LAYERS"
    assert len(rooms) <= MOST_ROOMS
    assert len(LAYERS) <= MOST_LAYERS


def test_rooms_import_from_lower_layers_only():
    back = [(place, room, other) for room, other, place in imports() if LEVEL[other] >= LEVEL[room]]
    assert not back


def test_no_cycle_between_rooms_and_few_layers_on_the_longest_path():
    graph = {}
    for room, other, _ in imports():
        graph.setdefault(room, set()).add(other)
    depth = {}
    for room in TopologicalSorter(graph).static_order():  # raises CycleError
        depth[room] = 1 + max((depth[other] for other in graph.get(room, ())), default=0)
    assert max(depth.values()) <= MOST_LAYERS


def binds_all(node):
    return "__all__" in bound_by(node)


def bound_by(node):
    """Return the names that a statement at the top of a module binds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    names = [name for target in targets if target is not None for name in ast.walk(target)]
    return {name.id for name in names if isinstance(name, ast.Name)}


@pytest.mark.parametrize("room", sorted(LEVEL))
def test_public_names_are_declared_and_exist(room):
    for path in (path for path, own in files().items() if own == room):
        if path.name == "__main__.py":
            continue
        tree = ast.parse(path.read_text())
        place = path.relative_to(ROOT)
        declared = [node for node in tree.body if binds_all(node)]
        assert declared or not tree.body[1:], f"{place}: no __all__"
        submodules = {child.stem for child in path.parent.iterdir()} if path.name == "__init__.py" else set()
        names = {name for node in declared for name in ast.literal_eval(node.value)}
        bound = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            for alias in getattr(node, "names", ())
            if isinstance(alias, ast.alias)
        }
        bound |= submodules.union(*map(bound_by, tree.body))
        assert names <= bound, f"{place}: {sorted(names - bound)} in __all__ and not in the module"


def test_files_and_functions_are_short():
    for path in files():
        text = path.read_text()
        assert text.count("\n") <= MOST_LINES, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < MOST_FUNCTION_LINES, f"{path}: {node.name}"


def test_every_test_file_mirrors_a_room_or_says_that_it_is_end_to_end():
    tests = ROOT / "tests"
    folders = {path.parent.relative_to(tests).parts[0] for path in tests.rglob("test_*.py") if path.parent != tests}
    assert folders <= {*LEVEL, "docs", "end_to_end", "scripts"}
