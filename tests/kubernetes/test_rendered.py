"""The Kubernetes resources: as they were read last, by the schemas, and in what the schemas do not tell."""

import copy
import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import rendering
from kubeflow_trainer_api import models
from rendering import DIGEST, JOBS, documents, jobs, rendered

pytestmark = pytest.mark.kubernetes

VERSION = "1.33"
OVERLAYS = ("jobset", "kueue")


@pytest.fixture(scope="module", params=OVERLAYS)
def resources(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return documents(rendered(request.param, tmp_path_factory.mktemp(request.param)))


def find(resources: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = (one for one in resources if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def containers(spec: dict[str, Any]) -> dict[str, Any]:
    (container,) = spec["template"]["spec"]["containers"]
    return dict(container)


def check(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, VERSION, strict=True)


def test_what_is_rendered_is_in_golden() -> None:
    """`python tests/kubernetes/rendering.py` renews it; the difference belongs to the change that makes it."""
    found = rendering.golden()
    assert found.keys() == {path.stem for path in rendering.GOLDEN.iterdir()}
    for name, text in found.items():
        assert text == (rendering.GOLDEN / f"{name}.yaml").read_text()


@pytest.mark.parametrize("folder", ["tensorboard", *(f"overlays/{overlay}" for overlay in OVERLAYS)])
def test_each_folder_is_valid_as_it_stands(folder: str) -> None:
    for resource in documents(rendering.kustomize(rendering.ROOT / "jobs" / "kubernetes" / folder)):
        if resource["kind"] != "JobSet":
            check(resource)


def test_the_claim_can_be_written_by_several_nodes() -> None:
    (claim,) = documents((rendering.ROOT / "jobs" / "kubernetes" / "claim.yaml").read_text())
    check(claim)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_schemas_know_every_field(resources: list[dict[str, Any]]) -> None:
    for resource in resources:
        if resource["kind"] != "JobSet":
            check(resource)
            continue
        parsed = models.JobsetV1alpha2JobSet.from_json(json.dumps(resource))
        bare = copy.deepcopy(resource)
        for job in bare["spec"]["replicatedJobs"]:
            spec = job["template"].pop("spec")
            check({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}, "spec": spec})
        # A field that the model does not know would be lost on the way.
        written = parsed.to_dict()
        for job in written["spec"]["replicatedJobs"]:
            del job["template"]["spec"]
        assert written == bare


def test_every_pod_is_restricted(resources: list[dict[str, Any]]) -> None:
    tensorboard = documents((rendering.GOLDEN / "tensorboard.yaml").read_text())
    pods = [spec["template"]["spec"] for spec in jobs(resources).values()]
    pods += [one["spec"]["template"]["spec"] for one in tensorboard if one["kind"] == "Deployment"]
    assert len(pods) == len(JOBS) + 1
    for pod in pods:
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == 10001
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert {"name": "temporary", "mountPath": "/tmp"} in container["volumeMounts"]
        assert {"name": "temporary", "emptyDir": {}} in pod["volumes"]
        assert "memory" in container["resources"]["limits"]


def test_every_job_is_retried_as_its_exit_code_says(resources: list[dict[str, Any]]) -> None:
    assert tuple(jobs(resources)) == JOBS
    for spec in jobs(resources).values():
        assert spec["podReplacementPolicy"] == "Failed"
        assert spec["podFailurePolicy"]["rules"] == [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "fmnist", "operator": "In", "values": [64]}},
        ]
        assert spec["activeDeadlineSeconds"] == 86400
        pod = spec["template"]["spec"]
        assert pod["restartPolicy"] == "Never"
        assert pod["terminationGracePeriodSeconds"] == 120
        assert pod["securityContext"]["fsGroup"] == 10001
        assert {"name": "results", "persistentVolumeClaim": {"claimName": "fmnist-results"}} in pod["volumes"]
        assert containers(spec)["image"] == DIGEST


def test_the_workers_are_an_indexed_job(resources: list[dict[str, Any]]) -> None:
    workers = jobs(resources)["workers"]
    assert workers["completionMode"] == "Indexed"
    assert workers["completions"] == workers["parallelism"] == 3
    assert workers["backoffLimitPerIndex"] == 6
    assert workers["successPolicy"] == {"rules": [{"succeededCount": 1}]}
    environment = containers(workers)["env"]
    # Kubernetes replaces $(NAME) only by what stands before it.
    assert [variable["name"] for variable in environment][:2] == ["JOB_COMPLETION_INDEX", "KERASTUNER_TUNER_ID"]
    assert environment[1]["value"] == "worker-$(JOB_COMPLETION_INDEX)"
    assert {"name": "KERASTUNER_ORACLE_IP", "value": "my-run-chief"} in environment


def test_workers_that_share_a_gpu_are_one_pod(tmp_path: Path) -> None:
    workers = jobs(documents(rendered("jobset", tmp_path, 6, workers_per_gpu=3, gpus_per_worker=1)))["workers"]
    assert workers["completions"] == workers["parallelism"] == 2
    assert containers(workers)["args"][-2:] == ["--workers", "3"]
    assert containers(workers)["resources"]["limits"] == {"nvidia.com/gpu": 1, "memory": "12G"}


def test_without_gpus_nothing_asks_for_their_nodes(tmp_path: Path) -> None:
    for name, spec in jobs(documents(rendered("jobset", tmp_path, gpus_per_worker=0))).items():
        assert "tolerations" not in spec["template"]["spec"], name
        assert "nvidia.com/gpu" not in containers(spec)["resources"]["limits"]


def test_gpus_are_for_what_trains(resources: list[dict[str, Any]], tmp_path: Path) -> None:
    limits = {name: containers(spec)["resources"]["limits"] for name, spec in jobs(resources).items()}
    assert {name for name, limit in limits.items() if limit.get("nvidia.com/gpu") == 2} == {"workers", "train"}
    assert sum("nvidia.com/gpu" in limit for limit in limits.values()) == 2


def test_the_chief_can_be_found_probed_and_called_by_its_workers(resources: list[dict[str, Any]]) -> None:
    chief = jobs(resources)["chief"]
    labels = chief["template"]["metadata"]["labels"]
    own = {"app.kubernetes.io/instance": "my-run", "app.kubernetes.io/component": "chief"}
    assert own.items() <= labels.items()
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert containers(chief)[probe]["grpc"] == {"port": 5000}
    service = find(resources, "Service", "my-run-chief")["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True
    assert own.items() <= service["selector"].items() <= labels.items()
    policy = find(resources, "NetworkPolicy", "my-run-chief")["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    (ingress,) = policy["ingress"]
    (caller,) = ingress["from"]
    callers = caller["podSelector"]["matchLabels"]
    assert callers.items() <= jobs(resources)["workers"]["template"]["metadata"]["labels"].items()
    assert callers["app.kubernetes.io/instance"] == "my-run"
    assert ingress["ports"] == [{"port": "grpc", "protocol": "TCP"}]


def test_chief_and_workers_alone_have_the_token(resources: list[dict[str, Any]]) -> None:
    assert find(resources, "Secret", "my-run-token")["data"].keys() == {"token"}
    volume = {"name": "token", "secret": {"secretName": "my-run-token", "defaultMode": 0o440}}
    having = {name for name, spec in jobs(resources).items() if volume in spec["template"]["spec"]["volumes"]}
    assert having == {"chief", "workers"}
    for name in having:
        container = containers(jobs(resources)[name])
        assert {"name": "FMNIST_TOKEN_FILE", "value": "/token/token"} in container["env"]
        assert {"name": "token", "mountPath": "/token", "readOnly": True} in container["volumeMounts"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_jobset_starts_each_job_when_what_it_needs_is_there(overlay: str, tmp_path: Path) -> None:
    resources = documents(rendered(overlay, tmp_path))
    jobset = find(resources, "JobSet", "my-run-jobs")
    assert [one["kind"] for one in resources if one["kind"] == "Job"] == []
    depending = {job["name"]: job.get("dependsOn") for job in jobset["spec"]["replicatedJobs"]}
    assert depending == {
        "chief": None,
        # They give up after ten minutes without a chief.
        "workers": [{"name": "chief", "status": "Ready"}],
        "train": [{"name": "chief", "status": "Complete"}],
        "eval": [{"name": "train", "status": "Complete"}],
        "report": [{"name": "eval", "status": "Complete"}],
    }
    # A Job that went before its JobSet would be made again.
    assert [name for name, spec in jobs(resources).items() if "ttlSecondsAfterFinished" in spec] == []
    assert jobset["spec"]["ttlSecondsAfterFinished"] == 604800
    assert jobset["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") == {"jobset": None, "kueue": "team"}[overlay]


def test_the_variables_reach_every_job(tmp_path: Path) -> None:
    text = rendered("jobset", tmp_path, 5, ("training.epochs=2",), time=30, memory="9G", cpus=7, namespace="team-a")
    resources = documents(text)
    assert {one["metadata"]["namespace"] for one in resources} == {"team-a"}
    specs = jobs(resources)
    options = ["--recipe", "smoke", "--seed", "1", "--run", "/results/my-run", "--set", "training.epochs=2"]
    assert {name: containers(spec)["args"] for name, spec in specs.items()} == {
        "chief": ["tune", *options, "--gpus-per-worker", "2"],
        "workers": ["tune", *options, "--gpus-per-worker", "2"],
        "train": ["train", *options],
        "eval": ["eval", "/results/my-run"],
        "report": ["report", "/results/my-run"],
    }
    assert {spec["activeDeadlineSeconds"] for spec in specs.values()} == {1800}
    assert specs["workers"]["completions"] == 5
    for name in ("workers", "train"):
        resources_ = containers(specs[name])["resources"]
        assert resources_["requests"] == {"cpu": "7", "memory": "9G"}
        assert resources_["limits"]["memory"] == "9G"
