# What uv.lock holds, by its hashes, and this checkout. The Compose files of `fedproof deploy init`
# build it: CHECKOUT=/path docker-compose up -d.
FROM python:3.12.11-slim-bookworm
WORKDIR /src
COPY pyproject.toml uv.lock ./
RUN pip install --no-cache-dir uv==0.13.9 \
 && uv export --frozen --no-dev --no-emit-project --quiet --output-file /tmp/requirements.txt \
 && pip install --no-cache-dir --require-hashes --requirement /tmp/requirements.txt
COPY . .
RUN pip install --no-cache-dir --no-deps . && useradd --uid 10001 fedproof
USER 10001
