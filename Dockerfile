FROM python:3.13-slim AS build
# For native code: only here, not where it runs.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
RUN python -m venv /opt/allotment
WORKDIR /src
# First what seldom changes. The lock also holds the tools of the developers; they do no harm here,
# and one list of hashes is easier to trust than two.
COPY requirements.lock .
RUN /opt/allotment/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY . .
RUN /opt/allotment/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.13-slim
RUN useradd --system --create-home --home-dir /var/lib/allotment allotment
COPY --from=build /opt/allotment /opt/allotment
ENV PATH="/opt/allotment/bin:$PATH" PYTHONUNBUFFERED=1 \
    ALLOTMENT_HOME=/var/lib/allotment ALLOTMENT_HOST=0.0.0.0 ALLOTMENT_PORT=8080
USER allotment
WORKDIR /var/lib/allotment
VOLUME /var/lib/allotment
EXPOSE 8080
ENTRYPOINT ["allotment"]
CMD ["serve"]
