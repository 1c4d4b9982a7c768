"""A run's policy as an ONNX file, with its scaling, names and limits."""

from finflow.cli.main import main

if __name__ == "__main__":
    main("export")
