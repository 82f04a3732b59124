"""Models for programs without torch: `folder.export_model` writes a folder of ONNX files, which `graphs` draws."""
