"""Build hook: generates the gRPC stubs and their types from protos/ into valkyr/api/."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent


def generate(root: Path = ROOT) -> list[Path]:
    """Writes the stubs of every proto below `root`/protos, removes those of protos that are gone, and returns what is
    there. RuntimeError, after protoc's own words."""
    import grpc_tools
    from grpc_tools import protoc

    source = root / "protos"
    protos = sorted(str(path.relative_to(source)) for path in source.rglob("*.proto"))
    _remove_stubs_without(root, protos)
    well_known = str(Path(grpc_tools.__file__).parent / "_proto")
    scripts = Path(sys.executable).parent
    plugins = [f"--plugin=protoc-gen-{name}={scripts / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")]
    outputs = [f"--{kind}_out={root}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    if protoc.main(["protoc", f"-I{source}", f"-I{well_known}", *plugins, *outputs, *protos]) != 0:
        raise RuntimeError("protoc failed; see its message above")
    written = _stubs(root)
    for folder in {path.parent for path in written} | {path.parent.parent for path in written}:
        (folder / "__init__.py").touch()
    return written


def _remove_stubs_without(root: Path, protos: list[str]) -> None:
    """Removes every stub whose proto is none of `protos`, and the folders that are empty then."""
    kept = {root / proto.removesuffix(".proto") for proto in protos}
    for stub in _stubs(root):
        if stub.with_name(stub.name.partition("_pb2")[0]) not in kept:
            stub.unlink()
    folders = sorted((path for path in (root / "valkyr/api").rglob("*") if path.is_dir()), reverse=True)
    for folder in folders:
        if folder.is_dir() and not any(path.name not in ("__init__.py", "__pycache__") for path in folder.iterdir()):
            shutil.rmtree(folder)


def _stubs(root: Path) -> list[Path]:
    return [path for pattern in ("*_pb2*.py", "*_pb2*.pyi") for path in (root / "valkyr/api").rglob(pattern)]


class StubsHook(BuildHookInterface[Any]):
    """Called by hatchling for wheels and for editable installs."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        generate(Path(self.root))
        build_data["artifacts"].append("valkyr/api/**")


if __name__ == "__main__":
    print(f"{len(generate())} files in valkyr/api/")
