# The clone's commands. Each makes sure of the set-up first, which takes a moment once it is there.
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

demo: setup ## simulated FR3, policy and filter over ROS, headless; out/demo (DEMO="--checkpoint DIR" for another one)
	@$(RUN) python -m hybridvla_ros.demos.demo $(DEMO)

tasks: setup ## contact sheet of the simulated tasks with their experts' success (TASKS_N episodes each, resumable); out/tasks
	@$(RUN) python -m hybridvla_sim.sheet --episodes $(TASKS_N)

rigs: setup ## both rigs without hardware, through their launch files; results in out/rigs
	@$(RUN) python -m hybridvla_ros.demos.rigs

test: setup ## unit tests, parity, and ROS tests with a real master; all but those marked `long`
	@$(RUN) scripts/test.sh

test-long: setup ## the tests marked `long`: whole trainings, compilations, launches, conditions that take their time
	@$(RUN) scripts/test.sh --long

coverage: setup ## `make test` with its coverage: the files that the tests reach least, and the whole
	@rm -f .coverage
	@$(RUN) env HYBRIDVLA_COVERAGE=1 scripts/test.sh
	@$(RUN) python -m coverage report --sort=cover

fuzz: setup ## adversarial proposals against the filter (FUZZ_N ticks, FUZZ_SEED); out/fuzz/summary.json
	@$(RUN) python test/fuzz/run.py --ticks $(FUZZ_N) --seed $(FUZZ_SEED)

mutants: setup ## changes in safety/ that its fast tests do not notice; goes on where it was ended; MUTANTS="--sample 400 --seed 1"
	@$(RUN) scripts/mutants.sh $(MUTANTS)

soak: setup ## rate and longest gap of the filter beside rig and policy (SOAK_S a scheduler); out/soak/summary.json
	@$(RUN) python -m hybridvla_ros.benchmarks.soak --seconds $(SOAK_S)

test38: setup ## what the robot computer runs, under Python 3.8 where one is found
	@scripts/test38.sh

bench: setup ## time inference: the shipped checkpoint, small-100m in float32 and bfloat16, images, staleness; out/bench
	@$(RUN) scripts/bench.sh

matrix: setup ## the model's tests with the oldest and the newest torch and transformers, in .matrix/
	@$(RUN) scripts/matrix.sh

field: setup ## run the scripts of a folder of yours (HYBRIDVLA_FIELD_CASES) on this clone; FIELD="--only WORD" chooses
	@$(RUN) python test/field/run.py $(FIELD)

field-training: setup ## 30 bags of an unseen scene over ROS, data set, fine-tuning, success before and after; out/field-training
	@$(RUN) scripts/field_training.sh

lint: setup ## style, layers, types, documents, spelling, shell, YAML, Docker, catkin, Python 3.8, sizes of files, secrets
	@$(RUN) scripts/lint.sh

images: setup ## go through the builds of the containers' images without a container (docs/containers.md)
	@$(RUN) python scripts/checks/containers.py

rviz: setup ## RViz loads the layouts and shows the arm, on a screen without a monitor (apt install rviz xvfb first)
	@$(RUN) scripts/test.sh test/ros/view/test_rviz_picture.py

tour: setup ## the pictures of docs/tour.md
	@$(RUN) python scripts/tour.py

audit: setup ## the locks against the package index's advisories, where it serves them
	@scripts/audit.sh

docs: setup ## the documents and the reference of the code as pages, in out/docs
	@scripts/docs.sh

clean: ## remove what was built (build, devel); keeps .venv and out, which holds recordings, data sets and trainings
	rm -rf build devel
