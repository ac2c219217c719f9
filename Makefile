# Two commands are all the set-up there is: `make demo` and `make test`.
# They install what is missing (as root, or with sudo) or say in one line what to install.

.PHONY: demo test build serve lint format bench check-bench bench-verdict fuzz openapi docs sqlx chaos simulate check-replicas check-renderings check-containers check-slurm check-kubernetes check-deploy check-alerts check-datastores check-contract check-supply-chain clean

demo: ## build, start, train both examples, show what came out, stop
	@scripts/setup.sh build run
	cargo build --release --locked
	@python3 scripts/demo.py

test: ## format, lints, generated files, and every test with everything it needs
	@scripts/setup.sh build run test
	cargo fmt --check
	scripts/with-postgres.sh scripts/test.sh

build: ## the release binary: target/release/estimatord
	@scripts/setup.sh build
	cargo build --release --locked

serve: build ## the service with its own database, on 127.0.0.1:8080
	@scripts/setup.sh run
	target/release/estimatord serve

lint:
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings

format:
	cargo fmt

bench: ## what the service does beside its limits and peers, on a quiet machine: prints the table, and writes docs/benchmarks.md
	@scripts/setup.sh build run bench
	cargo build --release --locked
	cargo bench --locked --bench service -- --write

check-bench: ## the same in seconds: fails where a ratio is far from what it was
	@scripts/setup.sh build run bench
	cargo build --release --locked
	cargo bench --locked --bench service -- --short

bench-verdict: ## what a verdict costs, without service and database
	cargo bench --locked --bench validate

# How many bodies `make fuzz` judges.
FUZZ_BODIES ?= 10000000

fuzz: ## ten million generated bodies through reader and rules, in about half an hour on two cores
	PROPTEST_CASES=$$(( ($(FUZZ_BODIES) + 1) / 2 )) cargo test --profile fuzz --locked --lib -- --ignored --test-threads 2 fuzz_

openapi: ## write openapi/openapi.json anew
	cargo run --locked -- openapi > openapi/openapi.json.new && mv openapi/openapi.json.new openapi/openapi.json

docs: openapi ## write docs/rules.md anew, and the OpenAPI document
	cargo run --locked -- rules > docs/rules.md.new && mv docs/rules.md.new docs/rules.md

sqlx: ## write .sqlx anew, the checked queries' cache
	scripts/with-postgres.sh scripts/sqlx-prepare.sh

# How many kills `make chaos` makes; SEED=… makes the same choices again.
KILLS ?= 1000

chaos: ## the service as several processes under load, killed at random with its database; on Slurm too, as root on a Debian
	@scripts/setup.sh build run test
	cargo build --release --locked
	@if [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then KILLS=$(KILLS) tests/slurm/cluster.sh run scripts/chaos.py; \
		else echo "not root on a Debian: without Slurm"; KILLS=$(KILLS) scripts/chaos.py; fi

# How many histories `make simulate` makes up; SIMULATION_SEED=… makes up others.
HISTORIES ?= 2000000

simulate: ## two million simulated histories, and a thousand on a real PostgreSQL, in about half an hour on two cores
	@scripts/setup.sh build run test
	SIMULATION_HISTORIES=$(HISTORIES) SIMULATION_TWINS=1000 NEXTEST_PROFILE=long \
		scripts/with-postgres.sh cargo nextest run --locked --test simulation

check-replicas: ## 5,000 short runs on two replicas, and twenty times a replica replaced under load
	@scripts/setup.sh build run test
	ESTIMATORD_TEST_SHORT_RUNS=5000 ESTIMATORD_TEST_ROUNDS=10 NEXTEST_PROFILE=long \
		cargo nextest run --locked --test service -E 'test(/^replicas::/)'

check-renderings: ## every rendering, read by the SDK or tool that it is written for
	scripts/check-renderings.sh

check-containers: ## the process backend in real containers: a Docker of its own, as root
	scripts/with-docker.sh cargo nextest run --locked --test backends --test service --run-ignored only -E 'test(/^(containers|images)::/)'

check-slurm: ## 200 runs and ten kills, a controller gone for a minute, 2,000 jobs: on a Slurm cluster, with accounting and without
	@scripts/setup.sh build run test
	for accounting in 1 0; do ESTIMATORD_TEST_SLURM_ACCOUNTING=$$accounting ESTIMATORD_TEST_RUNS=200 ESTIMATORD_TEST_KILLS=10 \
		ESTIMATORD_TEST_PAUSE_SECONDS=60 ESTIMATORD_TEST_JOBS=2000 tests/slurm/cluster.sh run scripts/test-slurm.sh || exit 1; done

check-kubernetes: ## 100 runs and eight kills, an API server gone for a minute; and a real one where KUBECONFIG names it
	ESTIMATORD_TEST_RUNS=100 ESTIMATORD_TEST_KILLS=8 ESTIMATORD_TEST_PAUSE_SECONDS=60 \
		scripts/with-postgres.sh cargo nextest run --locked --test service -E 'test(/^kubernetes::/)'
	@if [ -n "$$KUBECONFIG" ]; then cargo nextest run --locked --test backends --run-ignored only -E 'test(/^kubernetes_real::/)'; \
		else echo "KUBECONFIG names no cluster: the tests on a real one are left out"; fi

check-deploy: ## deploy/ against the schemas of Kubernetes
	scripts/check-deploy.sh

check-alerts: ## the alert rules, as Prometheus reads them, and their tests
	scripts/check-alerts.sh

check-datastores: ## datastores that speak the protocols of S3 and Azure Blob Storage
	scripts/with-stores.sh cargo nextest run --locked --test stores --run-ignored only

# How many cases the service is asked per operation and phase; SCHEMATHESIS_SEED=… makes up others.
SCHEMATHESIS_EXAMPLES ?= 20

check-contract: ## the HTTP contract from outside: validators, made-up requests, generated clients, Swagger UI in a browser
	@scripts/setup.sh build run contract
	cargo build --locked
	ESTIMATORD=$${CARGO_TARGET_DIR:-target}/debug/estimatord SCHEMATHESIS_EXAMPLES=$(SCHEMATHESIS_EXAMPLES) scripts/check-contract.sh

check-supply-chain: ## advisories, licences and sources of what the service is made of, nothing unused, and a complete bill of materials
	@scripts/setup.sh build run
	scripts/check-supply-chain.sh

clean:
	cargo clean
