# The front door. `make` alone lists the targets and the common variables, `make variables` all of them.

# What is set here, make's command line alone may set otherwise: a site has a DATA, a TIME or a BIN of its own in the
# environment, which with `make -e` would even come before this file. Set to nothing, a variable keeps its default.
override HERE := $(shell sed -n 's/^\([A-Z][A-Z0-9_]*\) [:?]*=.*/\1/p' $(lastword $(MAKEFILE_LIST)))
override PUBLIC := $(shell sed -n 's/^\([A-Z][A-Z0-9_]*\) ?=.*/\1/p' $(lastword $(MAKEFILE_LIST)))
$(foreach name,$(HERE),$(if $(filter environment%,$(origin $(name))),$(eval override undefine $(name))))
$(foreach name,$(PUBLIC),$(if $(value $(name)),,$(eval override undefine $(name))))

#: name of a recipe, or path of a .toml file
RECIPE ?= tuned-mlp
#: random seed
SEED ?= 0
#: overrides of the recipe: SET="training.epochs=5 model.l2=0"
SET ?=
#: name of the run's folder [RECIPE-seedSEED]
RUN ?= $(RECIPE_NAME)-seed$(SEED)
#: folder of the run folders
RESULTS ?= results
#: folder of the IDX files; if not set, they are found or fetched
DATA ?=
#: number of trials of `tune`; if not set, the recipe's
TRIALS ?=
#: processes that train trials [1, on GPUs up to 4 or one each]
WORKERS ?=
#: where jobs run: local (.venv), docker, podman, or auto
ENGINE ?= local
# Further variables, which `make variables` lists.
#: of an export: savedmodel, tflite, tflite-int8 or onnx
FORMAT ?= onnx
#: GPUs of each worker
GPUS_PER_WORKER ?=
#: workers that share the GPU of one job on CLUSTER
WORKERS_PER_GPU ?=
#: port of `tensorboard`, on this machine
PORT ?= 6006
#: 1: `eval` also scores the model with test-time averaging
TTA ?=
#: number of seeds of RECIPE in `evidence`, 5 or more
SEEDS ?= 10
#: number of seeds of each reference in `evidence`
REFERENCE_SEEDS ?= 3
#: cuda or cpu, for `image`; cuda also for `setup`
ACCELERATOR ?= cuda
#: base image of `image` [debian:bookworm-slim]
BASE_IMAGE ?=
#: image of containers [fmnist:cuda or :cpu]; nodes pull it
IMAGE ?=
#: memory of a container, or of a training job on CLUSTER: 8G
MEMORY ?=
#: where `submit` submits to: slurm or kubernetes
CLUSTER ?= slurm
#: processors of a training job on CLUSTER
CPUS ?= 2
#: time limit of each job on CLUSTER, in minutes
TIME ?=
#: what runs a Slurm job: none, podman, apptainer or pyxis
RUNTIME ?= none
#: Slurm account of the jobs
ACCOUNT ?=
#: Slurm partition of the jobs
PARTITION ?=
#: how often an interrupted Slurm job is queued again
REQUEUES ?= 10
#: Kubernetes jobs: jobset (JobSet 0.8+), or kueue
OVERLAY ?= jobset
#: Kubernetes namespace of the jobs
NAMESPACE ?=
#: Kueue queue of the jobs
QUEUE ?=
#: how often `test-faults` tries what comes out by chance [5]
ROUNDS ?=
#: Python 3.10 to 3.13, to make the virtual environment
PYTHON3 ?= python3

unexport $(HERE)

# What the command line gives is data. make takes it as it stands, where a `$` would call make's functions, and the shell
# gets it in quotes. A line break would end a command in spite of them; so it can mark here where a word begins.
override define LINE_BREAK


endef
$(foreach name,$(HERE),$(if $(filter command,$(firstword $(origin $(name)))),\
	$(eval override $(name) := $$(value $(name)))\
	$(if $(findstring $(LINE_BREAK),$($(name))),$(error $(name) has a line break in it; write it in one line))))
SPACE := $(subst ,, )
QUOTED = '$(subst ','\'',$(1))'
# --option='value', for the option's name and the variable's. A value may begin with a dash.
OPTION = --$(1)=$(call QUOTED,$($(2)))
OPTION_IF_SET = $(if $($(2)),$(OPTION))
# An override begins with a key, `section.key=`; what follows it up to the next one is its value, spaces and all.
BEGINS = $(and $(findstring =,$(1)),$(findstring .,$(KEY)),$(if $(findstring [,$(KEY))$(findstring {,$(KEY)),,yes))
KEY = $(firstword $(subst =, ,_$(1)))
MARKED = $(foreach word,$(SET),$(if $(call BEGINS,$(word)),$(LINE_BREAK))$(word))
SET_OPTIONS = $(if $(SET),--set=$(subst $(LINE_BREAK),,$(subst $(SPACE)$(LINE_BREAK),' --set=',$(call QUOTED,$(MARKED)))))
# For notdir and patsubst a name ends at a space.
RECIPE_NAME = $(subst %p,%,$(subst %s,$(SPACE),$(patsubst %.toml,%,$(notdir $(subst $(SPACE),%s,$(subst %,%p,$(RECIPE)))))))

# Of the rest of the environment a site's or other work's settings of Python, of shells and of git may change what runs.
unexport $(filter-out PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX PYTHONUNBUFFERED PYTHONUTF8 PYTHON_%,$(filter PYTHON%,$(.VARIABLES)))
unexport BASH_ENV CDPATH ENV GREP_OPTIONS POSIXLY_CORRECT SHELLOPTS
unexport GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_COMMON_DIR
# pip is told by the site where packages are, and here which of them go where.
unexport $(filter-out $(addprefix PIP_,CACHE_DIR CERT CLIENT_CERT CONFIG_FILE DEFAULT_TIMEOUT EXTRA_INDEX_URL FIND_LINKS \
	INDEX_URL KEYRING_PROVIDER NO_CACHE_DIR NO_INDEX NO_INPUT PROXY RETRIES TIMEOUT TRUSTED_HOST USE_FEATURE),$(filter PIP_%,$(.VARIABLES)))
# Of a login or a job that has ended.
ifeq ($(wildcard $(TMPDIR)/.),)
unexport TMPDIR
endif
# Nor does make look for files elsewhere.
VPATH :=

ifeq ($(filter auto docker podman local,$(ENGINE)),)
$(error ENGINE=$(ENGINE) is not known; use auto, docker, podman or local)
endif
ifeq ($(ENGINE),auto)
override ENGINE := $(or $(shell $(call QUOTED,$(PYTHON3)) -E -m jobs.engines),$(error no ENGINE was found))
endif

VENV := .venv
BIN := $(VENV)/bin
# The environment that is there, whatever this machine has: jobs of another one may run from it.
TENSORFLOW := $(or $(if $(filter override,$(origin ACCELERATOR)),$(filter cuda,$(ACCELERATOR))),\
	$(patsubst $(VENV)/%.stamp,%,$(firstword $(wildcard $(VENV)/cuda.stamp $(VENV)/cpu.stamp))),\
	$(shell nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu))
ENVIRONMENT := $(VENV)/$(TENSORFLOW).stamp
DEV_ENVIRONMENT := $(VENV)/dev.stamp
EXPORT_ENVIRONMENT := $(VENV)/export.stamp

# The commands that run a job in what ENGINE names, and what they need.
ifeq ($(ENGINE),local)
READY := $(ENVIRONMENT)
FMNIST := $(BIN)/fmnist
# It computes nothing, so TensorFlow has nothing to say in it, and needs no GPU.
TENSORBOARD := CUDA_VISIBLE_DEVICES=-1 TF_CPP_MIN_LOG_LEVEL=2 TF_ENABLE_ONEDNN_OPTS=0 \
	$(BIN)/python -m jobs.tensorboard
else
READY :=
FMNIST = $(call QUOTED,$(PYTHON3)) -m jobs.containers $(call OPTION,engine,ENGINE) $(call OPTION_IF_SET,image,IMAGE) \
	$(call OPTION_IF_SET,memory,MEMORY)
TENSORBOARD = $(FMNIST) tensorboard
endif
# No option, even if it begins with a dash.
FOLDER = $(if $(filter -%,$(firstword $(RESULTS))),./)$(RESULTS)
RUN_DIR = $(FOLDER)/$(RUN)
RUN_ARGUMENT = $(call QUOTED,$(RUN_DIR))
DATA_OPTION = $(call OPTION_IF_SET,data,DATA)
JOB_OPTIONS = $(call OPTION,recipe,RECIPE) $(call OPTION,seed,SEED) $(call OPTION,run,RUN_DIR) $(SET_OPTIONS) $(DATA_OPTION)
TUNE_OPTIONS = $(call OPTION_IF_SET,trials,TRIALS) $(call OPTION_IF_SET,workers,WORKERS) \
	$(call OPTION_IF_SET,gpus-per-worker,GPUS_PER_WORKER)

# `make` alone.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory
# The jobs of `all` meet through files: one after the other, whatever -j says, and none after one that failed (-k).
.NOTPARALLEL:
ifneq ($(filter all,$(MAKECMDGOALS)),)
tune: data
train: tune
eval: train
report: eval
endif
.PHONY: help variables setup all data tune train eval report export runs evidence submit status logs cancel devices image tensorboard test test-faults chaos lint bench bench-search bench-pictures tour lock clean

#@ Start here

all: data tune train eval report ## run the main job, from the data to the report

setup: $(ENVIRONMENT) ## make the virtual environment (other targets do so too)

data: $(READY) ## find or fetch the data set and verify it
	$(FMNIST) data $(DATA_OPTION)

tune: $(READY) ## search for the best configuration
	$(FMNIST) tune $(JOB_OPTIONS) $(TUNE_OPTIONS)

train: $(READY) ## train the final model
	$(FMNIST) train $(JOB_OPTIONS)

eval: $(READY) ## score the model on the test set
	$(FMNIST) eval $(RUN_ARGUMENT) $(DATA_OPTION)
	$(if $(filter 1,$(TTA)),$(FMNIST) eval $(RUN_ARGUMENT) --tta $(DATA_OPTION))

export: $(READY) $(if $(READY),$(EXPORT_ENVIRONMENT)) ## convert the model for other runtimes
	$(FMNIST) export $(RUN_ARGUMENT) $(call OPTION,format,FORMAT) $(DATA_OPTION)

evidence: RECIPE := $(if $(filter file,$(origin RECIPE)),wide-mlp,$(RECIPE))
evidence: $(ENVIRONMENT) ## train and score RECIPE [wide-mlp] with many seeds
	$(if $(filter-out local,$(ENGINE)),$(error evidence runs with ENGINE=local alone))
	$(if $(SET),$(error evidence takes a recipe as it stands; write SET into a recipe of your own))
	$(BIN)/fmnist evidence $(call OPTION,recipe,RECIPE) $(call OPTION,seeds,SEEDS) \
		$(call OPTION,reference-seeds,REFERENCE_SEEDS) $(call OPTION,results,RESULTS) $(DATA_OPTION)

#@ Look

report: $(READY) ## print the summary of a run and write report.html
	$(FMNIST) report $(RUN_ARGUMENT)

runs: $(READY) ## list all runs: state, figures, date and size
	$(FMNIST) runs $(call QUOTED,$(FOLDER))

tensorboard: $(READY) ## show all runs on http://localhost:6006 (PORT)
	$(TENSORBOARD) $(call OPTION,port,PORT) $(call QUOTED,$(FOLDER))

devices: $(READY) ## print what this machine computes with
	$(FMNIST) devices

help: ## print this list
	@awk '/^#@ / { heading = substr($$0, 4) } \
		/^[a-z%-]+:.*## / { if (heading) print "\n" heading; heading = ""; sub(/:.*## /, " "); \
			name = $$1; $$1 = ""; printf "  make %-14s%s\n", name, $$0 }' $(MAKEFILE_LIST)
	@printf '\nVariables, set on the command line alone: make train RECIPE=smoke SEED=1\n'
	@awk '/^# Further/ { exit } $(VARIABLE)' $(MAKEFILE_LIST)
	@echo '`make variables` lists all variables. README.md and docs/ explain the rest.'

variables: ## print all variables
	@awk '$(VARIABLE)' $(MAKEFILE_LIST)

# A comment `#: ...` describes the variable below it.
VARIABLE = /^\#: / { text = substr($$0, 4); next } \
	text { value = $$0; sub(/^[^=]*= ?/, "", value); \
		printf "  %-15s %s%s\n", $$1, text, value ~ /^[^$$]/ ? " [" value "]" : ""; text = "" }

#@ Containers and clusters

image: ## build the container image
	$(call QUOTED,$(PYTHON3)) -m jobs.image --engine=$(call QUOTED,$(ENGINE:local=auto)) \
		$(call OPTION,accelerator,ACCELERATOR) $(call OPTION_IF_SET,base-image,BASE_IMAGE)

submit: $(ENVIRONMENT) ## submit tune, train, eval and report to CLUSTER
	$(ON_CLUSTER) submit $(CLUSTER_OPTIONS)

# Whatever environment is there: to make it anew would take it from the jobs that run.
status logs cancel: $(if $(wildcard $(VENV)/cuda.stamp $(VENV)/cpu.stamp),,$(ENVIRONMENT))
	@$(ON_CLUSTER) $@ $(CLUSTER_OPTIONS)

status: ## print how far the submitted jobs are (same variables)
logs: ## print the last lines of their logs
cancel: ## end the submitted jobs

ON_CLUSTER = $(BIN)/python -m jobs.cluster
CLUSTER_OPTIONS = $(call OPTION,cluster,CLUSTER) $(JOB_OPTIONS) $(TUNE_OPTIONS) \
	$(call OPTION_IF_SET,workers-per-gpu,WORKERS_PER_GPU) $(foreach name,$(SITE),$(call OPTION_IF_SET,$(name),$(name)))
SITE := IMAGE TIME MEMORY CPUS RUNTIME ACCOUNT PARTITION REQUEUES OVERLAY NAMESPACE QUEUE

#@ Develop

test: $(DEV_ENVIRONMENT) ## run the tests
	$(BIN)/pytest $(IN_PARALLEL)

test-faults: $(DEV_ENVIRONMENT) ## run the slow ones: kills, full disks, cut networks
	$(BIN)/pytest -m faults $(IN_PARALLEL) $(call OPTION_IF_SET,rounds,ROUNDS)

test-%: $(DEV_ENVIRONMENT) ## %: containers, slurm, kubernetes, browser, gpu ...
	$(BIN)/pytest -m $(call QUOTED,$(subst -,_,$*)) $(if $(filter gpu,$*),$(IN_PARALLEL) --verbose)

# Each process of pytest's has two or three that it tests.
IN_PARALLEL = --numprocesses auto --maxprocesses 4 --dist worksteal

chaos: $(DEV_ENVIRONMENT) ## kill the processes of twenty searches at random
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m tools.chaos $(call OPTION,seed,SEED)
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m tools.chaos_tune $(call OPTION,seed,SEED)

lint: $(DEV_ENVIRONMENT) ## check style, types and shell scripts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck --external-sources .ci/run docker/*.sh jobs/slurm/*.s*h tests/containers/*.sh tests/slurm/*.sh

bench: $(DEV_ENVIRONMENT) ## compare the speed with the alternatives
	$(BIN)/python -m benchmarks speed
	$(BIN)/python -m benchmarks search
	$(BIN)/python -m benchmarks quick
	$(BIN)/python -m benchmarks several

bench-search: $(DEV_ENVIRONMENT) ## measure searches, to a thousand simulated workers
	$(BIN)/python -m benchmarks chief --pairs 2
	$(BIN)/python -m benchmarks scale
	$(BIN)/python -m benchmarks oracles --oracles asha --seeds 3 --seconds 30

bench-pictures: $(DEV_ENVIRONMENT) ## classify pictures of many kinds
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m benchmarks pictures

tour: $(DEV_ENVIRONMENT) ## take the pictures of the pages (needs Chromium)
	$(BIN)/python -m tools.tour $(RUN_ARGUMENT) docs

lock: $(DEV_ENVIRONMENT) ## renew requirements/ from pyproject.toml
	$(LOCK) --extra cpu --output-file requirements/cpu.txt pyproject.toml
	$(LOCK) --extra cuda --output-file requirements/cuda.txt pyproject.toml
	$(LOCK) --constraint requirements/cpu.txt --group export --output-file requirements/export.txt
	$(LOCK) --constraint requirements/cpu.txt --group dev --output-file requirements/dev.txt
	$(LOCK) --group old-keras --output-file requirements/old-keras.txt
	$(LOCK) --group gpu-compile --output-file requirements/gpu-compile.txt

LOCK = $(BIN)/uv pip compile --no-config --quiet --upgrade --universal --python-version 3.10 --generate-hashes \
	--custom-compile-command 'make lock'

clean: ## remove the virtual environment and caches, not results
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find benchmarks docker fmnist jobs tests tools -name __pycache__ -prune -exec rm -rf {} +

# The empty options are for what a configuration file may say.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-user --target=

# A stamp is its recipe's last line, so an environment that failed half-way is made anew.
$(ENVIRONMENT): requirements/$(TENSORFLOW).txt
	@$(call QUOTED,$(PYTHON3)) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
		{ echo 'make: fmnist needs Python 3.10 to 3.13; name one: make PYTHON3=python3.12' >&2; exit 1; }
	@$(call QUOTED,$(PYTHON3)) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo make: $(call QUOTED,$(PYTHON3)) 'cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	@echo 'making $(VENV) from $<; this takes a few minutes' >&2
	@$(call QUOTED,$(PYTHON3)) -m venv --clear $(VENV)
	@$(PIP_INSTALL) --require-hashes --requirement $<
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@docker/link_cusolver.sh $(VENV)
	@touch $@

$(DEV_ENVIRONMENT) $(EXPORT_ENVIRONMENT): $(VENV)/%.stamp: requirements/%.txt $(ENVIRONMENT)
	@$(PIP_INSTALL) --require-hashes --requirement $<
	@touch $@

# The oldest Keras that loads model.keras, and XLA's compiler for GPUs; their tests make them.
build/old-keras.stamp build/gpu-compile.stamp: build/%.stamp: requirements/%.txt $(ENVIRONMENT)
	@$(BIN)/python -m venv --clear $(basename $@)
	@$(basename $@)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@
