"""What of the environment here Slurm's commands see, and with them the jobs.

`make submit` may run in a job itself, or where somebody has set how Slurm's commands shall behave for other work.
"""

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase

from fmnist.environment import XLA_FLAGS

_FOREIGN = (
    # Of the job around this one: what it has, who it is in its MPI program or its search, whose GPUs it sees.
    "SLURM*", "_SLURM*", "SPANK_*", "PMI_*", "PMI2_*", "PMIX_*", "OMPI_*", "PRTE_*",
    "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK",
    "KERASTUNER_*", "FMNIST_*",
    # What Slurm's commands would be told to ask for, to leave out or to show.
    "SBATCH_*", "SRUN_*", "SALLOC_*", "SQUEUE_*", "SCANCEL_*", "SCONTROL_*",
    # What changes how the jobs' scripts and Python read their code.
    "BASH_ENV", "BASH_FUNC_*", "BASHOPTS", "CDPATH", "ENV", "POSIXLY_CORRECT", "SHELLOPTS", "PYTHON*",
)  # fmt: skip

_OURS = (
    # Which cluster, and who asks.
    "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_SACK_*",
    # Who pays, and where: what a user may have as a default, and the pipeline does not say.
    "SBATCH_ACCOUNT", "SBATCH_CLUSTERS", "SBATCH_CLUSTER_CONSTRAINT", "SBATCH_CONSTRAINT", "SBATCH_PARTITION",
    "SBATCH_QOS", "SBATCH_RESERVATION", "SBATCH_TIMELIMIT", "SBATCH_WCKEY",
    # What is set for fmnist on purpose.
    "FMNIST_TLS_*", XLA_FLAGS,
)  # fmt: skip


def inherited(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """`environment` without what belongs to another job, or contradicts what the pipeline asks for."""
    return {name: value for name, value in environment.items() if _matches(name, _OURS) or not _matches(name, _FOREIGN)}


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
