"""Block runners, sessions and providers of onnxruntime. Only this package imports onnxruntime."""
