"""Trained networks as files that other programs run: ONNX, PyTorch's own program, safetensors."""
