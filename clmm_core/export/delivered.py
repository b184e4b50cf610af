"""A finished run's model as a server sends it to hosts: an ONNX file and its golden vectors."""

from pathlib import Path

from clmm_core.errors import ConfigError


def exported(folder: Path) -> tuple[bytes, str]:
    """Return the content of the two files for a results folder. Temperature and threshold stay as they are: recordings are with the hosts.

    Raises:
        ConfigError: the extra `export` is not installed.
        ClmmError: the run's model cannot be read, or not be exported.
    """
    try:
        import onnxruntime  # noqa: F401, PLC0415
    except ImportError as error:
        raise ConfigError("exporting needs the package 'onnxruntime': pip install 'clmm[export]' on the server") from error
    from clmm_core.export.golden_vectors import golden_of  # noqa: PLC0415  these load it, too
    from clmm_core.export.onnx_file import onnx_model  # noqa: PLC0415
    from clmm_core.export.trained import read_trained  # noqa: PLC0415
    from clmm_core.recognise.golden import golden_json  # noqa: PLC0415
    from clmm_core.recognise.onnx_model import OnnxModel  # noqa: PLC0415

    trained = read_trained(folder)
    content = onnx_model(trained).SerializeToString()
    return content, golden_json(golden_of(trained, content, OnnxModel.from_bytes(content, "the exported model")))
