"""The rendered pods as containers on one network, from the search to the report: no cluster, but all that they say."""

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from clusters import IMAGE, need_image, podman
from conftest import COMPLETE
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rendering import documents, jobs, rendered

pytestmark = pytest.mark.kubernetes

SHORT = ("data.train_limit=2000", "search.epochs=2", "training.epochs=2")


class Node:
    """Runs pods as the kubelet would, with Podman."""

    def __init__(self, folder: Path, resources: list[dict[str, Any]]) -> None:
        self.folder = folder
        self.network = f"fmnist-test-{os.getpid()}"
        self.specs = jobs(resources)
        self.secrets = {one["metadata"]["name"]: one["data"] for one in resources if one["kind"] == "Secret"}
        self.services = {
            one["spec"]["selector"]["app.kubernetes.io/component"]: one["metadata"]["name"]
            for one in resources
            if one["kind"] == "Service"
        }
        self.containers: list[str] = []
        podman("network", "create", self.network)

    def start(self, job: str, index: int = 0) -> str:
        """Start the pod of a job; return the container's name."""
        pod = self.specs[job]["template"]["spec"]
        (container,) = pod["containers"]
        name = f"{self.network}-{job}-{index}"
        security, inside = pod["securityContext"], container["securityContext"]
        options = [f"--user={security['runAsUser']}:{security['runAsGroup']}", f"--network={self.network}"]
        options += [f"--cap-drop={capability}" for capability in inside["capabilities"]["drop"]]
        options += ["--read-only"] if inside["readOnlyRootFilesystem"] else []
        options += [] if inside["allowPrivilegeEscalation"] else ["--security-opt=no-new-privileges"]
        # A headless Service is a name of its pods.
        options += [f"--network-alias={self.services[job]}"] if job in self.services else []
        options += [f"--env={key}={value}" for key, value in self._environment(container, index).items()]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for mount in container["volumeMounts"]:
            options += self._volume(volumes[mount["name"]], mount, security["fsGroup"])
        # On a machine without a GPU.
        assert set(container["resources"]["limits"]) <= {"memory", "nvidia.com/gpu"}
        entrypoint, *command = container["command"]
        options += ["--detach", f"--name={name}", f"--entrypoint={entrypoint}"]
        podman("run", *options, IMAGE, *command, *container["args"])
        self.containers.append(name)
        return name

    def _environment(self, container: dict[str, Any], index: int) -> dict[str, str]:
        found: dict[str, str] = {}
        for variable in container.get("env", []):
            if "valueFrom" in variable:
                path = variable["valueFrom"]["fieldRef"]["fieldPath"]
                assert path == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
                found[variable["name"]] = str(index)
            else:
                # As Kubernetes does, with what stands before.
                found[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], variable["value"])
        return found

    def _volume(self, volume: dict[str, Any], mount: dict[str, Any], group: int) -> list[str]:
        path = mount["mountPath"]
        if "emptyDir" in volume:
            return [f"--tmpfs={path}"]
        folder = self.folder / volume["name"]
        if "secret" in volume:
            folder.mkdir(exist_ok=True)
            for key, value in self.secrets[volume["secret"]["secretName"]].items():
                file = folder / key
                file.write_bytes(base64.b64decode(value))
                os.chown(file, 0, group)
                file.chmod(volume["secret"]["defaultMode"])
        elif "persistentVolumeClaim" in volume:
            folder.mkdir(exist_ok=True)
            os.chown(folder, 0, group)
            folder.chmod(0o2775)
        else:
            assert volume["configMap"]["optional"] is True
            return []
        return [f"--volume={folder}:{path}{':ro' if mount.get('readOnly') else ''}"]

    def ends_well(self, container: str) -> None:
        code = podman("wait", container)
        assert code == "0", subprocess.run(["podman", "logs", container], capture_output=True, text=True).stderr

    def address(self, container: str) -> str:
        (network,) = json.loads(podman("inspect", container))[0]["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])

    def close(self) -> None:
        for container in self.containers:
            podman("rm", "--force", "--time=0", container)
        podman("network", "rm", "--force", self.network)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    need_image()
    # Not pytest's folder, which is root's alone.
    folder = Path("/var/tmp") / f"fmnist-pods-{os.getpid()}"
    folder.mkdir()
    resources = documents(rendered("jobset", tmp_path, workers=2, overrides=SHORT, image=IMAGE))
    node = Node(folder, resources)
    yield node
    node.close()
    shutil.rmtree(folder)


def test_the_pods_make_a_complete_run_folder(node: Node) -> None:
    chief = node.start("chief")
    workers = [node.start("workers", index) for index in range(node.specs["workers"]["completions"])]
    probe = node.specs["chief"]["template"]["spec"]["containers"][0]["livenessProbe"]["grpc"]
    # Or it might look again only when the search is over.
    often = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)]
    with grpc.insecure_channel(f"{node.address(chief)}:{probe['port']}", often) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=120
        )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    for container in (chief, *workers):
        node.ends_well(container)
    for job in ("train", "eval", "report"):
        node.ends_well(node.start(job))
    run = node.folder / "results" / "my-run"
    assert {path.name for path in run.iterdir()} >= COMPLETE
    assert {path.stat().st_uid for path in run.rglob("*")} == {10001}
    trials = (run / "trials.csv").read_text()
    assert trials.count("COMPLETED") == 3
    assert "worker-0" in trials
    assert "worker-1" in trials
