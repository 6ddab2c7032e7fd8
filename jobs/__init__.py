"""How the jobs are submitted: to containers on one host, to Slurm, to Kubernetes."""
