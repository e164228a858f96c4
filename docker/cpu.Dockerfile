# Auricle's server on a CPU: docker build -f docker/cpu.Dockerfile -t auricle .
FROM python:3.12-slim
RUN apt-get update && apt-get install --yes --no-install-recommends ffmpeg && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY . .
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -c constraints.txt '.[serve,align]' \
    && useradd --create-home listener
USER listener
EXPOSE 8000
HEALTHCHECK --interval=10s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health')"]
# Other containers reach it, so that it needs a key: a file with one in each line, or its SHA-256.
CMD ["auricle", "serve", "--host", "0.0.0.0", "--api-key-file", "/run/secrets/auricle_keys"]
