# Auricle's server on a GPU: docker build -f docker/gpu.Dockerfile -t auricle-gpu . && docker run --gpus all …
FROM nvidia/cuda:12.8.1-runtime-ubuntu24.04
RUN apt-get update && apt-get install --yes --no-install-recommends ffmpeg python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY . .
ENV PATH=/opt/auricle/bin:$PATH
# Without constraints.txt, which asks for the torch of a CPU.
RUN python3 -m venv /opt/auricle && pip install --no-cache-dir '.[serve,align]' && useradd --create-home listener
USER listener
EXPOSE 8000
HEALTHCHECK --interval=10s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health')"]
CMD ["auricle", "serve", "--model", "mispeech/midashenglm-7b", "--host", "0.0.0.0", "--api-key-file", "/run/secrets/auricle_keys"]
