"""Choose the environment variables that Slurm's commands, and with them the jobs, inherit from the caller.

`make submit` may itself run in a job, or where variables make Slurm's commands behave differently for other work.
"""

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase

from fmnist.environment import XLA_FLAGS

_FOREIGN = (
    # A surrounding job's resources, its place in an MPI program or a search, and its GPUs.
    "SLURM*", "_SLURM*", "SPANK_*", "PMI_*", "PMI2_*", "PMIX_*", "OMPI_*", "PRTE_*",
    "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "HIP_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK",
    "KERASTUNER_*", "FMNIST_*",
    # Options that Slurm's commands take from the environment.
    "SBATCH_*", "SRUN_*", "SALLOC_*", "SQUEUE_*", "SCANCEL_*", "SCONTROL_*",
    # What changes how the jobs' scripts and Python read their code.
    "BASH_ENV", "BASH_FUNC_*", "BASHOPTS", "CDPATH", "ENV", "POSIXLY_CORRECT", "SHELLOPTS", "PYTHON*",
)  # fmt: skip

_OURS = (
    # The cluster, and the user's credentials.
    "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_SACK_*",
    # Who pays, and where jobs run: a user's defaults, which the pipeline does not set.
    "SBATCH_ACCOUNT", "SBATCH_CLUSTERS", "SBATCH_CLUSTER_CONSTRAINT", "SBATCH_CONSTRAINT", "SBATCH_PARTITION",
    "SBATCH_QOS", "SBATCH_RESERVATION", "SBATCH_TIMELIMIT", "SBATCH_WCKEY",
    # What is set for fmnist on purpose.
    "FMNIST_TLS_*", XLA_FLAGS,
)  # fmt: skip


def inherited(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return `environment` without what belongs to another job, or contradicts what the pipeline asks for."""
    return {name: value for name, value in environment.items() if _matches(name, _OURS) or not _matches(name, _FOREIGN)}


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
