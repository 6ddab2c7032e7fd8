"""What `make submit CLUSTER=kubernetes` applies, rendered; `python tests/kubernetes/rendering.py` renews golden/."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from fmnist.run.folder import RunDir  # noqa: E402
from jobs.kubernetes import submitter  # noqa: E402
from jobs.pipeline import Pipeline, Site  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"
DIGEST = "registry.example/fmnist@sha256:" + 64 * "0"
JOBS = submitter.JOBS


def rendered(
    overlay: str,
    folder: Path,
    workers: int = 3,
    overrides: tuple[str, ...] = (),
    workers_per_gpu: int = 1,
    gpus_per_worker: int = 2,
    **site: Any,
) -> str:
    """As `kubectl kustomize` prints it for the run `my-run` in `folder`."""
    pipeline = Pipeline(
        RunDir(folder / "my-run"),
        "smoke",
        seed=1,
        overrides=overrides,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        workers_per_gpu=workers_per_gpu,
    )
    queue = "team" if overlay == "kueue" else None
    with pipeline.prepared():
        pipeline.token.write_text("secret")
        submitter.render(pipeline, Site(**{"image": DIGEST, "overlay": overlay, "queue": queue, **site}), folder / "k")
    return kustomize(folder / "k")


def kustomize(folder: Path) -> str:
    return subprocess.run(["kubectl", "kustomize", folder], check=True, capture_output=True, text=True).stdout


def documents(text: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text))


def jobs(of: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The specs of the Jobs that the JobSet makes, by name."""
    (jobset,) = (one for one in of if one["kind"] == "JobSet")
    return {job["name"]: job["template"]["spec"] for job in jobset["spec"]["replicatedJobs"]}


def golden() -> dict[str, str]:
    """All that is applied, by the golden file's name."""
    found = {}
    for overlay in submitter.OVERLAYS:
        with tempfile.TemporaryDirectory() as folder:
            found[overlay] = rendered(overlay, Path(folder), time=60, memory="8G", namespace="team-a")
            found["tensorboard"] = kustomize(Path(folder) / "k" / "tensorboard")
    return found


if __name__ == "__main__":
    for name, text in golden().items():
        (GOLDEN / f"{name}.yaml").write_text(text)
