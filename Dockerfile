# One streamrec worker: runtime packages from the hashed lock, no torch, no compilers, no root.
FROM python:3.11.13-slim-bookworm AS packages
COPY requirements-worker.lock /requirements-worker.lock
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --requirement /requirements-worker.lock

FROM python:3.11.13-slim-bookworm
RUN useradd --create-home --uid 10001 streamrec
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY models models
COPY streams streams
COPY consumers consumers
COPY infra infra
# compiled kernels are cached where this user may write; Python's output reaches the log at once
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/home/streamrec/.cache/numba \
    STREAMREC_WEB_HOST=0.0.0.0 \
    STREAMREC_WEB_PORT=8000
USER streamrec
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=6 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/live', timeout=2)"]
STOPSIGNAL SIGTERM
CMD ["python", "-m", "infra.cli", "worker"]
