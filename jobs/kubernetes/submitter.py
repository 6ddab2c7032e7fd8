"""Submit the pipeline to Kubernetes: kubectl applies a kustomization of the run, on top of an overlay of this folder.

kustomize has no variables. What differs from run to run is in a small kustomization in the run's folder, which names
the resources and replaces some values of the overlay.
"""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from fmnist.errors import BadInput
from fmnist.files import copy, read_bytes, write_json
from fmnist.run.folder import RunDir
from jobs.pipeline import Pipeline, Site, need, write_secret

_HERE = Path(__file__).parent
OVERLAYS = tuple(sorted(path.name for path in (_HERE / "overlays").iterdir()))
JOBS = ("chief", "workers", "train", "eval", "report")
"""The jobs, in the order of the JobSet."""
_POD = "/template/spec"
_CONTAINER = f"{_POD}/containers/0"


def submit(pipeline: Pipeline, site: Site) -> None:
    """Apply the run's resources. A JobSet of the same name that has ended makes room: it would not run again.

    Raises:
        BadInput: a setting is wrong, or the cluster refuses the resources.
    """
    folder = _folder(pipeline.run)
    with pipeline.prepared():
        render(pipeline, site, folder)
        if _kubectl(site, "get", "persistentvolumeclaim/fmnist-results", check=False).returncode:
            _kubectl(site, "version")
            raise BadInput("the namespace has no claim fmnist-results; see jobs/kubernetes/claim.yaml")
        jobset = f"jobset/{pipeline.name}-jobs"
        if _kubectl(site, "get", jobset, "--output=jsonpath={.status.terminalState}", check=False).stdout:
            _kubectl(site, "delete", jobset, "--cascade=foreground")
        _kubectl(site, "apply", "--dry-run=server", "--kustomize", str(folder))
    for kustomization in (folder / "tensorboard", folder):
        print(_kubectl(site, "apply", "--kustomize", str(kustomization)).stdout.strip())
    print("`make status` and `make logs` with the same variables tell how far they are; TensorBoard:")
    print("kubectl port-forward service/fmnist-tensorboard 6006, then http://localhost:6006")


def render(pipeline: Pipeline, site: Site, folder: Path) -> None:
    """Write the run's kustomization to `folder`, and TensorBoard's to `folder`/tensorboard.

    Raises:
        BadInput: a value that Kubernetes would refuse.
    """
    if site.overlay not in OVERLAYS:
        raise BadInput(f"OVERLAY={site.overlay} is not known; use one of {', '.join(OVERLAYS)}")
    if site.queue and site.overlay != "kueue":
        raise BadInput(f"QUEUE={site.queue} needs OVERLAY=kueue")
    if not site.image:
        raise BadInput("Kubernetes needs IMAGE, an image that the nodes can pull; best by its digest")
    if pipeline.data:
        raise BadInput(
            "DATA (FMNIST_DATA) is of this machine: leave it out, on Kubernetes jobs read the data set in IMAGE"
        )
    # A Service's name begins with a letter.
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", pipeline.name):
        raise BadInput(
            f"RUN={pipeline.name}: Kubernetes takes up to 40 lower-case letters, digits and '-', the first a letter"
        )
    if (source := pipeline.recipe_file()) and not re.fullmatch(r"[a-zA-Z0-9._-]+", source.name):
        raise BadInput(f"RECIPE={source}: Kubernetes takes letters, digits, '.', '_' and '-' in the file's name")
    (folder / "tensorboard").mkdir(parents=True, exist_ok=True)
    copy(_HERE / "references.yaml", folder / "references.yaml")
    (folder / "token").unlink(missing_ok=True)
    write_secret(folder / "token", read_bytes(pipeline.token).decode("ascii"))
    labels = {"app.kubernetes.io/name": "fmnist", "app.kubernetes.io/instance": pipeline.name}
    kustomization: dict[str, Any] = {
        "resources": [_relative(_HERE / "overlays" / site.overlay, folder)],
        "configurations": ["references.yaml"],
        "namePrefix": f"{pipeline.name}-",
        "labels": [{"pairs": labels, "includeSelectors": True, "fields": _JOBSET_LABELS}],
        "generatorOptions": {"disableNameSuffixHash": True},
        "secretGenerator": [{"name": "token", "files": ["token"]}],
        "patches": _patches(pipeline, site),
    }
    if source:
        copy(source, folder / source.name)
        kustomization["configMapGenerator"] = [{"name": "recipe", "files": [source.name]}]
    tensorboard = {
        "resources": [_relative(_HERE / "tensorboard", folder / "tensorboard")],
        "patches": [_patch({"kind": "Deployment"}, {f"{_CONTAINER}/image": site.image}, "/spec")],
    }
    namespace = {"namespace": site.namespace} if site.namespace else {}
    # JSON is YAML.
    write_json(folder / "kustomization.yaml", kustomization | namespace)
    write_json(folder / "tensorboard" / "kustomization.yaml", tensorboard | namespace)


def _relative(path: Path, folder: Path) -> str:
    """Return `path` relative to `folder`, as kustomize requires."""
    return os.path.relpath(path, folder.resolve())


# kustomize knows where a Job has its pod's labels, but not where a JobSet has them.
_JOBSET_LABELS = [
    {"kind": "JobSet", "path": f"spec/replicatedJobs/template/{pod}metadata/labels", "create": True}
    for pod in ("", "spec/template/")
]


def _patches(pipeline: Pipeline, site: Site) -> list[dict[str, Any]]:
    """Return JSON patches (RFC 6902) that put the run's values into the overlay's JobSet."""
    patches = [
        _patch({"kind": "JobSet"}, _values(job, pipeline, site), f"/spec/replicatedJobs/{number}/template/spec")
        for number, job in enumerate(JOBS)
    ]
    if site.queue:
        patches.append(_patch({"kind": "JobSet"}, {"/kueue.x-k8s.io~1queue-name": site.queue}, "/metadata/labels"))
    return patches


def _patch(target: dict[str, str], values: dict[str, Any], below: str) -> dict[str, Any]:
    operations = [
        {"op": "remove", "path": below + path}
        if value is None
        else {"op": "replace", "path": below + path, "value": value}
        for path, value in values.items()
    ]
    return {"target": target, "patch": json.dumps(operations)}


def _values(job: str, pipeline: Pipeline, site: Site) -> dict[str, Any]:
    """Return the run's own values of a job's spec, by JSON pointer; None removes the value."""
    source = pipeline.recipe_file()
    verb = "tune" if job in ("chief", "workers") else job
    recipe = f"/recipe/{source.name}" if source else pipeline.recipe
    arguments = pipeline.arguments(verb, recipe, f"/results/{pipeline.name}")
    values: dict[str, Any] = {
        f"{_CONTAINER}/image": site.image,
        f"{_CONTAINER}/args": [argument.replace("$", "$$") for argument in arguments],  # $(NAME) would be a variable
    }
    if job == "workers":
        values |= {"/completions": pipeline.worker_jobs, "/parallelism": pipeline.worker_jobs}
    if job in ("workers", "train"):
        values[f"{_CONTAINER}/resources/limits/nvidia.com~1gpu"] = pipeline.gpus_per_worker or None
        if not pipeline.gpus_per_worker:
            values[f"{_POD}/tolerations"] = None
        values[f"{_CONTAINER}/resources/requests/cpu"] = str(site.cpus)
        # As gpu.yaml gives one worker.
        shared = f"{4 * pipeline.workers_per_gpu}G" if job == "workers" and pipeline.workers_per_gpu > 1 else None
        if memory := site.memory or shared:
            values |= {f"{_CONTAINER}/resources/{kind}/memory": memory for kind in ("requests", "limits")}
    if site.time:
        values["/activeDeadlineSeconds"] = 60 * site.time
    return values


def status(run: RunDir, site: Site) -> None:
    """Print the state of the run's jobs and pods, and the last lines of the chief's log."""
    found = _kubectl(site, "get", "jobsets,jobs,pods", *_selector(run)).stdout
    if not found:
        _check_submitted(run)
    print(found, end="")
    print(_kubectl(site, "logs", *_selector(run, "chief"), "--tail=2", check=False).stdout, end="")


def logs(run: RunDir, site: Site) -> None:
    """Print the end of each pod's log; for a pod that waits for a node, that it has none."""
    print(_kubectl(site, "logs", *_selector(run), "--prefix", "--tail=20", "--ignore-errors").stdout, end="")


def cancel(run: RunDir, site: Site) -> None:
    """Delete what `submit` applied, and wait until none of its pods is left. The results stay on the claim."""
    _check_submitted(run)
    deleted = _kubectl(site, "delete", "--ignore-not-found", "--cascade=foreground", "--kustomize", str(_folder(run)))
    print(deleted.stdout, end="")


def _check_submitted(run: RunDir) -> None:
    if not _folder(run).exists():
        raise BadInput(f"{run} was not submitted to Kubernetes; `make submit` does that")


def _folder(run: RunDir) -> Path:
    return run.path / "jobs" / "kubernetes"


def _selector(run: RunDir, job: str = "") -> list[str]:
    labels = f"app.kubernetes.io/name=fmnist,app.kubernetes.io/instance={run.path.name}"
    return ["--selector", f"{labels},app.kubernetes.io/component={job}" if job else labels]


def _kubectl(site: Site, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    need("kubectl", "Kubernetes")
    namespace = ["--namespace", site.namespace] if site.namespace else []
    result = subprocess.run(
        ["kubectl", *namespace, *arguments], capture_output=True, encoding="utf-8", errors="replace"
    )
    if check and result.returncode:
        raise BadInput(f"kubectl {arguments[0]}: {result.stderr.strip()}")
    return result
