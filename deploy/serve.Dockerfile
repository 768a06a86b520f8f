# The service that answers requests with the agents' results, for amd64 and arm64. From the root of the project:
#
#     docker buildx build --platform linux/amd64,linux/arm64 -f deploy/serve.Dockerfile -t planner-serve .
#     docker run -p 127.0.0.1:8000:8000 -v ./project:/project:ro planner-serve plan.json --connect nano:7447
#
# The folder /project has the plan, and whatever it refers to: scenario, profiles and models.
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml hatch_build.py requirements.lock README.md LICENSE ./
COPY planner planner
COPY examples examples
COPY models models
COPY profiles profiles
RUN python -m venv /opt/planner && /opt/planner/bin/pip install --no-cache-dir -c requirements.lock ".[serve,plan,model,cpu]"

FROM python:3.12-slim-bookworm
COPY --from=build /opt/planner /opt/planner
RUN useradd --system --uid 7447 --create-home planner
USER 7447
WORKDIR /project
EXPOSE 8000 8001
# Requests in flight are answered before it ends.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["/opt/planner/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
ENTRYPOINT ["/opt/planner/bin/planner", "serve", "--listen", "0.0.0.0:8000", "--grpc-listen", "0.0.0.0:8001"]
CMD ["plan.json"]
