# syntax=docker/dockerfile:1
# Two stages: the toolchain stays behind. The image has the service, and Python for the process backend; PostgreSQL is the
# operator's own (DATABASE_URL).
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make python3 && rm -rf /var/lib/apt/lists/*
# The image's own toolchain; rust-toolchain.toml would have rustup fetch formatter and lints, too.
ENV RUSTUP_TOOLCHAIN=1.95.0
# What writes the bill of materials; in the version of scripts/check-supply-chain.sh.
RUN --mount=type=cache,target=/usr/local/cargo/registry cargo install --locked --debug --root /opt/cyclonedx cargo-cyclonedx@0.5.9
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked && cp target/release/estimatord /usr/local/bin/estimatord \
    && export CARGO_CYCLONEDX=/opt/cyclonedx/bin/cargo-cyclonedx \
    && scripts/sbom.py write /sbom.cdx.json && scripts/sbom.py check /sbom.cdx.json

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-pip \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --create-home --home-dir /var/lib/estimatord estimatord
COPY --from=build /usr/local/bin/estimatord /usr/local/bin/estimatord
# Which packages it is made of, in which versions: for scanners (CycloneDX).
COPY --from=build /sbom.cdx.json /usr/share/doc/estimatord/sbom.cdx.json
USER 10001:10001
ENV ESTIMATORD_DATA_DIR=/var/lib/estimatord \
    ESTIMATORD_LISTEN=0.0.0.0:8080 \
    ESTIMATORD_LOG_FORMAT=json
VOLUME /var/lib/estimatord
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["estimatord", "healthcheck", "--url", "http://127.0.0.1:8080"]
ENTRYPOINT ["estimatord"]
# An address that others can reach needs a token: mount one and set ESTIMATORD_API_TOKEN_FILE.
CMD ["serve"]
