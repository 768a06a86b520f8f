"""ONNX in: the chain of blocks and cut points; splitting into block models; reference models."""
