"""Handle a run's pipeline on a cluster: `make submit|status|logs|cancel CLUSTER=slurm|kubernetes`."""

import dataclasses
import os
import sys
from pathlib import Path

from fmnist.errors import EXIT_BAD_INPUT, BadInput, explain
from fmnist.files import expand_home
from fmnist.run.folder import RunDir
from fmnist.text import escaped, print_anything
from jobs.kubernetes import submitter as kubernetes
from jobs.options import Parser
from jobs.pipeline import Pipeline, Site
from jobs.slurm import submitter as slurm

_CLUSTERS = {"slurm": slurm, "kubernetes": kubernetes}


def _parser() -> Parser:
    """Return the parser. The Makefile passes the same options with every verb, a site's under its variables' names."""
    parser = Parser(prog="jobs.cluster", description=__doc__)
    parser.add_argument("verb", choices=("submit", "status", "logs", "cancel"))
    parser.add_argument("--cluster", choices=_CLUSTERS, required=True)
    parser.add_argument("--run", type=lambda path: RunDir(path), required=True)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--data", type=Path, default=os.environ.get("FMNIST_DATA") or None)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--gpus-per-worker", type=int, default=1)
    parser.add_argument("--workers-per-gpu", type=int, default=1)
    for field in dataclasses.fields(Site):
        kind = int if field.name in ("time", "cpus", "requeues") else str
        parser.add_argument(f"--{field.name.upper()}", dest=field.name, type=kind, default=field.default)
    return parser


def main() -> None:
    """Do what the command line says."""
    print_anything()
    options = vars(_parser().parse_args(expand_home(sys.argv[1:])))
    cluster, verb = _CLUSTERS[options.pop("cluster")], options.pop("verb")
    site = Site(**{field.name: options.pop(field.name) for field in dataclasses.fields(Site)})
    if verb == "submit":
        cluster.submit(Pipeline(**options), site)
    else:
        getattr(cluster, verb)(options["run"], site)


if __name__ == "__main__":
    try:
        main()
    except (BadInput, OSError) as error:
        line = str(error) if isinstance(error, BadInput) else explain(error)
        if line is None:
            raise
        print(f"fmnist: {escaped(line)}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
