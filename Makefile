.DEFAULT_GOAL := help
.PHONY: help setup build demo test chaos bench load fuzz deny sbom clean

NEXTEST := 0.9.143

help: ## say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: compiler, Postgres, RabbitMQ, libtorch
	@scripts/setup

build: setup ## build the binaries into target/debug
	cargo build --workspace --locked

demo: build ## segment real images with the whole system; pictures go to .demo/out, or to OUT=folder
	@target/debug/demo $(if $(OUT),--out '$(OUT)')

test: build ## unit tests, parity with the official SAM, end to end through real servers, kill -9, a rolling upgrade, chart, images, boards
	@scripts/setup --checks
	@cargo nextest --version > /dev/null 2>&1 || cargo install --locked cargo-nextest@$(NEXTEST)
	.venv/bin/python -m unittest discover -s helm/tests
	.venv/bin/python -m unittest discover -s containers/tests
	cargo test --workspace --locked --doc --quiet
	cargo nextest run --workspace --locked --no-fail-fast
	scripts/test-upgrade

chaos: build ## 10,000 jobs while everything is killed, cut off and restarted, and a verdict; SEED=1 JOBS=10000 MINUTES=12
	@target/debug/chaos $(if $(SEED),--seed '$(SEED)') $(if $(JOBS),--jobs '$(JOBS)') $(if $(MINUTES),--minutes '$(MINUTES)')

bench: setup ## a fine-tuning step against the official implementation's, in turns; SIZE=vit_b TURNS=3 STEPS=3 DEVICE=cpu PRECISION=fp32
	@scripts/bench $(if $(SIZE),--size '$(SIZE)') $(if $(TURNS),--turns '$(TURNS)') $(if $(STEPS),--steps '$(STEPS)') \
		$(if $(DEVICE),--device '$(DEVICE)') $(if $(PRECISION),--precision '$(PRECISION)')

load: setup ## rates of submission, claims and results, and how soon work starts, beside Celery and Procrastinate on the same servers
	cargo build --release --locked -p dispatcher -p tests
	target/release/load rates -- --record-files
	python3 -m venv target/peers && target/peers/bin/pip install --quiet --requirement tests/peers/requirements.txt
	target/release/load peers --python target/peers/bin/python

fuzz: setup ## coverage-guided fuzzing of all that reads foreign bytes, one after the other; SECONDS=600 each, TARGETS="png dicom"
	@scripts/fuzz --seconds '$(or $(SECONDS),600)' $(TARGETS)

deny: ## licences, bans, sources and advisories of the dependencies
	@scripts/setup --checks
	@scripts/deny

sbom: ## what each image is made of, as CycloneDX JSON in target/sbom
	@scripts/setup --checks
	@mkdir -p target/sbom
	@for target in dispatcher worker-cpu worker-cuda; do .venv/bin/python scripts/sbom $$target > target/sbom/$$target.cdx.json || exit 1; done
	@ls -l target/sbom

clean: ## remove what builds and demos made; the installed things stay
	cargo clean
	rm -rf .chaos .demo .setup.log
