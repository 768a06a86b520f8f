# An agent on the GPU of a Jetson with JetPack 6 (Orin). Build it on the device, from the root of the project:
#
#     docker build -f deploy/agent-l4t.Dockerfile -t planner-agent-l4t .
#     docker run --runtime nvidia --network host -v ./certs/orin:/certs:ro planner-agent-l4t \
#         --name orin --listen 0.0.0.0:7447 --cert-dir /certs --provider cuda
#
# Python is that of the base image (3.10). The wheel of onnxruntime is NVIDIA's, which no package index has: download the
# one for this JetPack from https://developer.nvidia.com/embedded/downloads, and put it into the folder wheels/.
ARG L4T=r36.4.0
FROM nvcr.io/nvidia/l4t-jetpack:${L4T}
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml hatch_build.py requirements.lock README.md LICENSE ./
COPY planner planner
COPY examples examples
COPY models models
COPY profiles profiles
COPY wheels wheels
RUN python3 -m venv /opt/planner \
    && /opt/planner/bin/pip install --no-cache-dir . wheels/onnxruntime_gpu-*.whl \
    && useradd --system --uid 7447 --groups video planner \
    && install -d -o planner /var/cache/planner
USER 7447
VOLUME /var/cache/planner
EXPOSE 7447
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/planner/bin/planner", "agent", "--cache", "/var/cache/planner"]
CMD ["--help"]
