# The commands of this clone. Each first makes sure that the set-up is complete, which takes a moment if it is.
.DEFAULT_GOAL := help
SHELL := /bin/bash
RUN := scripts/with_env.sh

.PHONY: help setup demo tasks rigs test test-long coverage fuzz soak test38 lint matrix clean bench field docs mutants field-training images audit rviz tour

FUZZ_N ?= 20000
FUZZ_SEED ?= 1
SOAK_S ?= 600
TASKS_N ?= 20

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-14s %s\n", $$1, $$2 }'

setup: ## install system packages and .venv, build the devel space
	@scripts/setup.sh

demo: setup ## run the simulated FR3, policy and filter over ROS, headless; results in out/demo (DEMO="--checkpoint DIR" for another)
	@$(RUN) python -m hybridvla_ros.demos.demo $(DEMO)

tasks: setup ## make a contact sheet of the simulated tasks with their experts' success (TASKS_N episodes each, resumable); out/tasks
	@$(RUN) python -m hybridvla_sim.sheet --episodes $(TASKS_N)

rigs: setup ## run both rigs without hardware, through their launch files; results in out/rigs
	@$(RUN) python -m hybridvla_ros.demos.rigs

test: setup ## run unit tests, parity tests, and ROS tests with a real master; all except those marked `long`
	@$(RUN) scripts/test.sh

test-long: setup ## run the tests marked `long`: whole trainings, compilations, launches, conditions that take a while
	@$(RUN) scripts/test.sh --long

coverage: setup ## run `make test` with coverage; list the least covered files first, then the total
	@rm -f .coverage
	@$(RUN) env HYBRIDVLA_COVERAGE=1 scripts/test.sh
	@$(RUN) python -m coverage report --sort=cover

fuzz: setup ## send adversarial proposals to the filter (FUZZ_N ticks, FUZZ_SEED); out/fuzz/summary.json
	@$(RUN) python test/fuzz/run.py --ticks $(FUZZ_N) --seed $(FUZZ_SEED)

mutants: setup ## find changes to safety/ that its fast tests do not notice; resumes where it stopped; MUTANTS="--sample 400 --seed 1"
	@$(RUN) scripts/mutants.sh $(MUTANTS)

soak: setup ## measure the filter's rate and longest gap beside rig and policy (SOAK_S seconds per scheduler); out/soak/summary.json
	@$(RUN) python -m hybridvla_ros.benchmarks.soak --seconds $(SOAK_S)

test38: setup ## test what the robot computer runs, under Python 3.8 if one is found
	@scripts/test38.sh

bench: setup ## time inference: the shipped checkpoint, small-100m in float32 and bfloat16, images, staleness; out/bench
	@$(RUN) scripts/bench.sh

matrix: setup ## run the model's tests with the oldest and the newest torch and transformers, in .matrix/
	@$(RUN) scripts/matrix.sh

field: setup ## run the scripts in your own folder (HYBRIDVLA_FIELD_CASES) on this clone; FIELD="--only WORD" selects some
	@$(RUN) python test/field/run.py $(FIELD)

field-training: setup ## record 30 bags of an unseen scene over ROS, make a data set, fine-tune, compare success before and after; out/field-training
	@$(RUN) scripts/field_training.sh

lint: setup ## check style, layers, types, documents, spelling, shell, YAML, Docker, catkin, Python 3.8, file sizes, secrets
	@$(RUN) scripts/lint.sh

images: setup ## perform the builds of the container images without a container (docs/containers.md)
	@$(RUN) python scripts/checks/containers.py

rviz: setup ## check that RViz loads the layouts and shows the arm, on a virtual screen (apt install rviz xvfb first)
	@$(RUN) scripts/test.sh test/ros/view/test_rviz_picture.py

tour: setup ## make the pictures of docs/tour.md
	@$(RUN) python scripts/tour.py

audit: setup ## check the locks against the package index's advisories, if it serves them
	@scripts/audit.sh

docs: setup ## build the documents and the code reference as pages, in out/docs
	@scripts/docs.sh

clean: ## remove what was built (build, devel); keep .venv and out, which holds recordings, data sets and trainings
	rm -rf build devel
