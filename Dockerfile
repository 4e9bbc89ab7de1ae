# The image of Tympan's processes: `tympan worker`, `tympan reaper`, and every other command.
#
#   docker build -t tympan .
#   docker run --rm --read-only --network host tympan --url redis://127.0.0.1:6379/0 doctor
#
# Workers are modules in /app: copy them there in an image of your own, or mount them.
#
#   FROM tympan
#   COPY desk.py /app/
#   CMD ["worker", "desk:worker", "--health", "0.0.0.0:8080"]

# A tag moves with its security fixes. To fix what is built from, give it a digest:
#   docker build --build-arg PYTHON_IMAGE=python:3.13-slim-trixie@sha256:... .
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ARG VERSION=0.1.0
# Of those in pyproject.toml; with telemetry for traces.
ARG EXTRAS=worker,uvloop,relay
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --quiet hatchling \
    && python -m venv --without-pip /opt/tympan
COPY . .
# Hashes in place of times: a copied file keeps what was compiled for it.
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /dist . \
    && /opt/build/bin/pip --python /opt/tympan/bin/python install --quiet --no-compile \
        "/dist/tympan-${VERSION}-py3-none-any.whl[${EXTRAS}]" \
    && find /opt/tympan -name '__pycache__' -prune -exec rm -rf {} + \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/tympan/lib

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 tympan \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin tympan
COPY --from=build /opt/tympan /opt/tympan
ENV PATH=/opt/tympan/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tympan" \
      org.opencontainers.image.description="Print-spooler notification channels for whole print farms" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENTRYPOINT ["/opt/tympan/bin/tympan"]
CMD ["--help"]
