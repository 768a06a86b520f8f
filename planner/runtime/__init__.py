"""onnxruntime: block runners, sessions, providers. The only package that imports onnxruntime."""
