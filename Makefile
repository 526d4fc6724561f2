.DEFAULT_GOAL := help
.PHONY: help setup build demo clean

help: ## say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: compiler, Postgres, RabbitMQ, libtorch
	@scripts/setup

build: setup ## build the binaries into target/debug
	cargo build

demo: setup ## segment real images with the whole system; pictures go to .demo/out, or to OUT=folder
	cargo build --package dispatcher --package worker --package demo
	@cargo run --quiet --package demo -- $(if $(OUT),--out '$(OUT)')

clean: ## remove what builds and demos made; the installed things stay
	cargo clean
	rm -rf .demo .setup.log
