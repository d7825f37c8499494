# Two images from one file: `operator` (operator, gateway and the `glm` command, no torch) and `worker` (one rank group's pod).
#   docker build --target worker -t glm-worker .
#   docker run --rm -p 8000:8000 --gpus all --shm-size 8g -v /models/GLM-4.5-Air:/model:ro glm-worker \
#     serve --model /model --served-model-name GLM-4.5-Air --device cuda --ranks-per-pod 4 --tensor-parallel 4
#
# Our own code comes last, in a small layer over the packages, so that a change of it is built, pushed and pulled in
# seconds. Both run as user 65532 with a read-only root file system; only /tmp must be writable.

# Pin a digest here for a release; any Debian with Python >= 3.11 and its venv module works.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS runtime
ENV PATH=/opt/glm/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /tmp
# PID 1 of a container loses each signal that it has no handler for, and Python has none in its first second. So an init is
# PID 1 (docs/design/0005-init.md). A base that is not Debian has to bring it.
RUN [ -x /usr/bin/tini-static ] \
    || { apt-get update -qq && apt-get install -qq --yes --no-install-recommends tini && rm -rf /var/lib/apt/lists/*; }
LABEL org.opencontainers.image.source="https://github.com/glm-operator/glm-operator" \
    org.opencontainers.image.licenses="MIT"

FROM runtime AS operator
# A company's own certificate authorities: the path of their file, which the build must see (a mount, or in BASE).
ARG SSL_CERT_FILE
LABEL org.opencontainers.image.title="glm-operator" \
    org.opencontainers.image.description="Operator of GLMDeployments"
# uv installs what the hashed locks name, several times as fast as pip; it comes and goes within the step that uses it.
COPY locks/uv.txt locks/operator.txt /opt/glm/locks/
RUN python3 -m venv --without-pip /opt/glm && python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --disable-pip-version-check --no-cache-dir ${SSL_CERT_FILE:+--cert "${SSL_CERT_FILE}"} \
    --require-hashes -r /opt/glm/locks/uv.txt \
    && PYC_INVALIDATION_MODE=UNCHECKED_HASH /opt/uv/bin/uv pip install --python /opt/glm/bin/python --no-cache \
    --compile-bytecode --require-hashes --only-binary :all: -r /opt/glm/locks/operator.txt \
    && rm -rf /opt/uv
RUN printf '#!/opt/glm/bin/python\nimport sys\nfrom %s import %s\nsys.exit(%s())\n' glm_operator.main main main \
    > /opt/glm/bin/glm-operator \
    && printf '#!/opt/glm/bin/python\nimport sys\nfrom %s import %s\nsys.exit(%s())\n' glm_operator.cli app app \
    > /opt/glm/bin/glm \
    && printf '#!/opt/glm/bin/python\nimport sys\nfrom %s import %s\nsys.exit(%s())\n' glm_gateway.main main main \
    > /opt/glm/bin/glm-gateway \
    && chmod 0755 /opt/glm/bin/glm-operator /opt/glm/bin/glm /opt/glm/bin/glm-gateway
ENV PYTHONPATH=/app/operator
COPY worker/glm_edge /app/operator/glm_edge
COPY operator/glm_gateway /app/operator/glm_gateway
COPY operator/glm_operator /app/operator/glm_operator
RUN find /app ! -perm -o=r -exec chmod a+rX {} + && python3 -m compileall -q --invalidation-mode unchecked-hash /app
USER 65532:65532
ENTRYPOINT ["/usr/bin/tini-static", "--", "glm-operator"]

# The worker's kernels: compiled here, because their compiler has no business in the image that serves.
FROM runtime AS kernels
ARG SSL_CERT_FILE
COPY locks/kernels.txt /opt/kernels/locks/
RUN python3 -m venv /opt/kernels && /opt/kernels/bin/pip install --disable-pip-version-check --no-cache-dir \
    ${SSL_CERT_FILE:+--cert "${SSL_CERT_FILE}"} --require-hashes -r /opt/kernels/locks/kernels.txt
COPY worker/glm_worker/kernels/cpu /opt/kernels/cpu
RUN /opt/kernels/bin/python /opt/kernels/cpu/build.py --out /opt/kernels/libglm_kernels.so

FROM runtime AS worker
ARG SSL_CERT_FILE
LABEL org.opencontainers.image.title="glm-worker" \
    org.opencontainers.image.description="Serves a glm4_moe checkpoint with its experts sharded over ranks"
COPY locks/uv.txt locks/worker.txt /opt/glm/locks/
RUN python3 -m venv --without-pip /opt/glm && python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --disable-pip-version-check --no-cache-dir ${SSL_CERT_FILE:+--cert "${SSL_CERT_FILE}"} \
    --require-hashes -r /opt/glm/locks/uv.txt \
    && PYC_INVALIDATION_MODE=UNCHECKED_HASH /opt/uv/bin/uv pip install --python /opt/glm/bin/python --no-cache \
    --compile-bytecode --require-hashes --only-binary :all: -r /opt/glm/locks/worker.txt \
    && rm -rf /opt/uv
RUN printf '#!/opt/glm/bin/python\nimport sys\nfrom %s import %s\nsys.exit(%s())\n' glm_worker.main main main \
    > /opt/glm/bin/glm-worker \
    && chmod 0755 /opt/glm/bin/glm-worker
ENV PYTHONPATH=/app/worker
EXPOSE 8000 9090
COPY worker/models /app/worker/models
COPY worker/glm_edge /app/worker/glm_edge
COPY worker/glm_worker /app/worker/glm_worker
COPY --from=kernels /opt/kernels/libglm_kernels.so /app/worker/glm_worker/kernels/cpu/libglm_kernels.so
RUN find /app ! -perm -o=r -exec chmod a+rX {} + && python3 -m compileall -q --invalidation-mode unchecked-hash /app
USER 65532:65532
ENTRYPOINT ["/usr/bin/tini-static", "--", "glm-worker"]
CMD ["serve"]
