# shellcheck shell=bash
# What the jobs of a Slurm pipeline have in common; each *.sbatch sources it. submitter.py, beside this file, sets
#
#   FMNIST_RUNTIME    none (a virtual environment on a shared file system), podman, apptainer or pyxis
#   FMNIST_PYTHON     none: the Python that has the package
#   FMNIST_IMAGE      the others: the image, as the runtime names it
#   FMNIST_MOUNTS     the others: what a job sees, as lines for --mount; pyxis: FOLDER:FOLDER,...
#   FMNIST_VARIABLES  the others: the variables that may change numbers, and are meant to
#   FMNIST_REQUEUES   how often an interrupted job is put back into the queue
#   FMNIST_CHIEF_JOB  the workers of a search: the chief's job
#
# environment.py decides what else the jobs inherit from the environment of the submission.

# The folder exists where the job was submitted, but perhaps not on this node.
[[ -d ${XDG_RUNTIME_DIR:-/} ]] || unset XDG_RUNTIME_DIR

# The last job of an array has the array's own number, by which Slurm would take all of them.
me=$SLURM_JOB_ID
[[ -z ${SLURM_ARRAY_TASK_ID:-} ]] || me=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID

# A job that asked for no GPU could see those of others, where nodes do not hide them. From a variable that is exported
# here, srun would take the value.
without_gpus=()
[[ -n ${SLURM_GPUS_ON_NODE:-}${CUDA_VISIBLE_DEVICES:-} ]] || without_gpus=(env CUDA_VISIBLE_DEVICES=-1)

readonly interrupted=75 # exit code of fmnist: the same command continues where it stopped

# run ARGUMENTS...: run `fmnist ARGUMENTS...`, pass signals on to it, and exit with its code. An interrupted job goes
# back into the queue: SIGUSR2 comes before the time limit, SIGTERM before a preemption.
run() {
    local status=0
    printf '%s: %s on %s, GPUs %s: fmnist %s\n' \
        "$(date --utc +%FT%TZ)" "$SLURM_JOB_NAME" "$SLURMD_NODENAME" "${CUDA_VISIBLE_DEVICES:-none}" "$*" >&2
    trap 'send TERM' TERM
    trap 'send USR2' USR2
    "start_$FMNIST_RUNTIME" "$@"
    # `wait` also returns when the trap of a signal has run.
    while kill -0 "$child" 2>/dev/null; do wait "$child" || true; done
    wait "$child" || status=$?
    wait # for the last lines of a container's log
    if ((status == interrupted)) && is_wanted && ((${SLURM_RESTART_COUNT:-0} < FMNIST_REQUEUES)); then
        echo "interrupted; back into the queue" >&2
        # That ends this job: what follows has half a minute.
        trap '' TERM
        scontrol requeue "$me"
        # A worker that starts before its chief would wait in vain; once the chief runs, this changes nothing.
        [[ -z ${FMNIST_CHIEF_JOB:-} ]] || scontrol update job="$me" dependency="after:$FMNIST_CHIEF_JOB" || true
    fi
    exit "$status"
}

# scancel sends SIGTERM too, to a job that nobody wants any more.
is_wanted() { [[ $(squeue --noheader --jobs="$me" --format=%T || echo RUNNING) == RUNNING ]]; }

# Each start_* starts a process in the background, `child`, which ends with the job's exit code, so that this shell can
# handle signals.

start_none() { step "${without_gpus[@]}" "$FMNIST_PYTHON" -m fmnist "$@"; }

start_apptainer() {
    local mounts
    readarray -t mounts <<<"$FMNIST_MOUNTS"
    step "${without_gpus[@]}" apptainer exec --nv --no-home "${mounts[@]/#/--mount=}" "$FMNIST_IMAGE" fmnist "$@"
}

start_pyxis() {
    # Without it enroot gives a container no GPU; which ones there are, Slurm decides.
    [[ -z ${SLURM_GPUS_ON_NODE:-} ]] || export NVIDIA_VISIBLE_DEVICES=all
    step --container-image="$FMNIST_IMAGE" --container-mounts="$FMNIST_MOUNTS" --no-container-mount-home \
        "${without_gpus[@]}" fmnist "$@"
}

step() {
    local options=(--export=ALL --cpus-per-task="${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}")
    # On a whole node, a step would get only as many GPUs as the job asked for; request all of them.
    [[ -z ${SLURM_GPUS_ON_NODE:-} ]] || options+=(--gres="gpu:$SLURM_GPUS_ON_NODE")
    srun "${options[@]}" "$@" &
    child=$!
}

send() { kill -s "$1" "$child"; }

# A container in the foreground would outlive `scancel`, which ends only Podman's client.
start_podman() {
    local options=() mounts gpu name
    readarray -t mounts <<<"$FMNIST_MOUNTS"
    container="fmnist-$SLURM_JOB_ID"
    # shellcheck disable=SC2317,SC2329  # the traps call it
    send() { podman kill --signal "$1" "$container" >/dev/null; }
    trap 'podman rm --force --time 0 --ignore "$container" >/dev/null' EXIT
    # GPUs are named by their numbers on the node. The container sees only these, so it needs no CUDA_VISIBLE_DEVICES.
    if grep --quiet --recursive --no-messages nvidia.com/gpu /etc/cdi /var/run/cdi; then
        # A job without GPUs has no such variable, on whatever node.
        local gpus=${SLURM_JOB_GPUS:-}
        for gpu in ${gpus//,/ }; do options+=(--device "nvidia.com/gpu=$gpu"); done
    elif [[ -n ${SLURM_JOB_GPUS:-} ]]; then
        echo "this node has no CDI file (nvidia-ctk cdi generate): on the CPU" >&2
    fi
    for name in $FMNIST_VARIABLES; do options+=(--env "$name"); done
    # Without root, a container maps users to others; the files must belong to the caller.
    ((EUID == 0)) || options+=(--userns keep-id)
    # A job that was killed before it could end its container may have left one of this name.
    podman run --detach --replace --name "$container" --network host --user "$(id -u):$(id -g)" \
        --read-only --tmpfs /tmp --cap-drop all --security-opt no-new-privileges --security-opt label=disable \
        --http-proxy=false --env 'KERASTUNER_*' --env 'FMNIST_*' "${mounts[@]/#/--mount=}" "${options[@]}" \
        "$FMNIST_IMAGE" fmnist "$@" >/dev/null
    podman logs --follow "$container" &
    (exit "$(podman wait "$container")") &
    child=$!
}
