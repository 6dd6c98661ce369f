"""`build_engine.sh`: engines on the board itself with its own trtexec, in the dialect of its version."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from edgetk.export.tensorrt_versions import Version

#: From this version on `--skipInference` is the name of what was `--buildOnly`.
_SKIPS = (8, 6)

_TEMPLATE = """#!/usr/bin/env bash
# Builds TensorRT {version} engines of the ONNX files beside it, on the machine that will run them.
# An engine runs on this GPU model and this version of TensorRT only: keep the ONNX files, build again after an upgrade.
# usage: ./build_engine.sh            TRTEXEC=/path/to/trtexec ./build_engine.sh
set -euo pipefail
cd "$(dirname "${{BASH_SOURCE[0]}}")"

trtexec=${{TRTEXEC:-$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)}}
[ -x "$trtexec" ] || {{ echo "build_engine: needs trtexec, got none at $trtexec; set TRTEXEC" >&2; exit 4; }}

# the banner says v8502 for 8.5.2, v100300 for 10.3.0
banner=$({{ "$trtexec" --help 2>&1 || true; }} | sed -n 's/.*\\[TensorRT v\\([0-9]*\\)\\].*/\\1/p' | head -n 1)
[ -n "$banner" ] || {{ echo "build_engine: $trtexec must print its version, got none; set TRTEXEC" >&2; exit 1; }}
if [ "$banner" -ge 100000 ]; then found=$((banner / 10000)).$((banner / 100 % 100)); else
  found=$((banner / 1000)).$((banner / 100 % 10)); fi
if [ "${{found%%.*}}" != {major} ]; then
  echo "build_engine: these graphs are for TensorRT {major}, got $found; export them for that version" >&2; exit 1
fi
[ "$found" = {version} ] || echo "build_engine: written for TensorRT {version}, this is $found" >&2

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 || true)
[ -n "$gpu" ] || gpu=$({{ cat /proc/device-tree/model 2>/dev/null || true; }} | tr -d '\\0')
[ -n "$gpu" ] || gpu=unknown

build() {{ # NAME SHA256 PRECISION FLAGS...
  local name=$1 wanted=$2 precision=$3 engine=${{1%.onnx}}.engine
  shift 3
  if [ "$(sha256sum "$name" | cut -d' ' -f1)" != "$wanted" ]; then
    echo "build_engine: $name is not the file this script was made for; copy it again" >&2; exit 1
  fi
  "$trtexec" --onnx="$name" --saveEngine="$engine" --timingCacheFile=timing.cache "$@"
  local sum; sum=$(sha256sum "$engine" | cut -d' ' -f1)
  {{
    printf '{{\\n  "portable": false,\\n  "built_for": "%s",\\n  "library": "tensorrt %s",\\n' "$gpu" "$found"
    printf '  "precision": "%s",\\n  "sha256": "%s",\\n' "$precision" "$sum"
    printf '  "onnx": "%s",\\n  "onnx_sha256": "%s"\\n}}\\n' "$name" "$wanted"
  }} > "$engine.json"
  echo "build_engine: $engine for $gpu, TensorRT $found, sha256 $sum"
}}

{builds}
"""


@dataclass(frozen=True)
class Graph:
    """An ONNX file beside the script: its name there, its content, the precision to build it in, whether sums are exact, and
    whether weights have the 2:4 pattern."""

    name: str
    content: bytes
    precision: str
    exact: bool = False
    sparse: bool = False


def script(graphs: Sequence[Graph], version: Version) -> str:
    """The text of `build_engine.sh` for `graphs` and one version of TensorRT."""
    lines = []
    for graph in graphs:
        words = (graph.name, sha256(graph.content).hexdigest(), graph.precision, *flags(graph, version))
        lines.append("build " + " ".join(shlex.quote(word) for word in words))
    return _TEMPLATE.format(version=version, major=version.major, builds="\n".join(lines))


def flags(graph: Graph, version: Version) -> tuple[str, ...]:
    """What trtexec has to be told: precision flags before 10, `--stronglyTyped` in 10, nothing about precision from 11 on."""
    told = ["--skipInference" if version >= _SKIPS else "--buildOnly"]
    if not version.is_typed:
        told += {"float16": ["--fp16"], "int8": ["--int8"]}.get(graph.precision, [])
    elif version.needs_typed_flag:
        told.append("--stronglyTyped")
    if graph.exact:
        told.append("--noTF32")
    if graph.sparse:
        told.append("--sparsity=enable")
    return tuple(told)
