"""Launch the jobs: in containers on one host, on Slurm, on Kubernetes."""
