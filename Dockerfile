# captioner in a container: `serve` unless told otherwise, or any other command. docs/serving.md shows how to use it.
#     docker build -t captioner .
#     docker run --rm --read-only -p 127.0.0.1:11434:11434 captioner
#     docker run --rm --read-only --network none -v "$PWD/photos:/photos:ro" captioner caption /photos
# For other machines as well: docker buildx build --platform linux/amd64,linux/arm64 -t captioner .
FROM python:3.12-slim AS build
# PyTorch's builds for the CPU. Others bring several GB for GPUs.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_EXTRA_INDEX_URL=$TORCH_INDEX PIP_NO_CACHE_DIR=1
WORKDIR /source
COPY pyproject.toml README.md LICENSE app.py ./
COPY .streamlit .streamlit
COPY checkpoints checkpoints
COPY captioner captioner
RUN python -m venv /opt/captioner
RUN /opt/captioner/bin/python -m pip install ".[serve,watch,metadata,raw]"
RUN /opt/captioner/bin/captioner models

FROM python:3.12-slim
COPY --from=build /opt/captioner /opt/captioner
ENV PATH=/opt/captioner/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number instead of a name, so that Kubernetes can tell that it is not root.
USER 10001:10001
WORKDIR /photos
EXPOSE 11434
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:11434/health', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["captioner"]
CMD ["serve", "--host", "0.0.0.0"]
