# An agent on the processor, for amd64 and arm64. From the root of the project:
#
#     docker buildx build --platform linux/amd64,linux/arm64 -f deploy/agent.Dockerfile -t planner-agent .
#     docker run --network host -v ./certs/nano:/certs:ro planner-agent --name nano --listen 0.0.0.0:7447 --cert-dir /certs
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml hatch_build.py requirements.lock README.md LICENSE ./
COPY planner planner
COPY examples examples
COPY models models
COPY profiles profiles
RUN python -m venv /opt/planner && /opt/planner/bin/pip install --no-cache-dir -c requirements.lock ".[cpu]"

FROM python:3.12-slim-bookworm
COPY --from=build /opt/planner /opt/planner
RUN useradd --system --uid 7447 planner && install -d -o planner /var/cache/planner
USER 7447
# Blocks of models, by content hash: a container that is replaced need not fetch them again.
VOLUME /var/cache/planner
EXPOSE 7447
# An agent leaves its run cleanly on SIGTERM, within a second.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/planner/bin/planner", "agent", "--cache", "/var/cache/planner"]
CMD ["--help"]
