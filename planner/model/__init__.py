"""ONNX models as chains of blocks and cut points, splitting into block models, and reference models."""
