"""Compile HLO programs for GPUs on a machine that has none, and say what each loop of theirs launches.

usage: python compiler.py FOLDER TARGET.txtpb ...

It is XLA's own GPU back end, of a version near TensorFlow's, with a target's figures in place of a device. Autotuning
needs a device and is left out. Prints a line of JSON for each FOLDER/PROGRAM.txt, which is HLO, and target, and leaves
the optimized program at FOLDER/PROGRAM.TARGET.hlo. It runs in an environment of its own, without fmnist and TensorFlow.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax._src import compiler
from jax._src.interpreters import mlir
from jax.experimental import topologies
from jaxlib import _hlo, _jax, xla_client
from jaxlib.mlir import ir

# What XLA's GPU back end makes no kernel, copy or library call of.
FREE = {"after-all", "bitcast", "constant", "get-tuple-element", "parameter", "tuple"}


def optimized(program: str, topology: Any) -> str:
    """Return the HLO text of what HLO text is compiled to."""
    # The client takes StableHLO, which has no copies.
    proto = _hlo.hlo_module_from_text(re.sub(r"\bcopy\(", "convert(", program)).as_serialized_hlo_module_proto()
    with mlir.make_ir_context():
        module = ir.Module.parse(xla_client._xla.mlir.xla_computation_to_mlir_module(_hlo.XlaComputation(proto)))
    options = compiler.get_compile_options(num_replicas=1, num_partitions=1, device_assignment=np.array([[0]]))
    device = topology.devices[0]
    executable = device.client.compile(module, executable_devices=_jax.DeviceList((device,)), compile_options=options)
    return executable.hlo_modules()[0].to_string()


def loops(text: str) -> Iterator[dict[str, Any]]:
    """Each loop's trip count, None if it is not known before it runs, and what an iteration launches."""
    computation = re.compile(r"^(?:ENTRY )?%([\w.\-]+) \([^\n]*\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
    bodies = {match[1]: match[2] for match in computation.finditer(text)}
    for match in re.finditer(r"while\(.*?body=%([\w.\-]+)(.*)", text):
        count = re.search(r'known_trip_count":\{"n":"(\d+)"', match[2])
        operations = re.findall(r"^\s*(?:ROOT )?%[\w.\-]+ = .*? ([a-z][\w\-]*)\(", bodies[match[1]], re.MULTILINE)
        launched = Counter(name for name in operations if name not in FREE)
        yield {"trip_count": int(count[1]) if count else None, "launches": launched}


def main(folder: Path, targets: list[Path]) -> None:
    for target in targets:
        topology = topologies.get_topology_desc(
            platform="cuda", topology_name=target.stem, target_config=target.read_text(), topology="1x1x1"
        )
        for path in sorted(folder.glob("*.txt")):
            text = optimized(path.read_text(), topology)
            path.with_suffix(f".{target.stem}.hlo").write_text(text)
            calls = sorted(set(re.findall(r'custom_call_target="([^"]*)"', text)))
            said = {"program": path.stem, "target": target.stem, "loops": list(loops(text)), "calls": calls}
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
