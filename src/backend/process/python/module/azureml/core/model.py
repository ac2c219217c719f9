"""`from azureml.core.model import Model`: the name only."""
from azureml.core._workspace_only import only_named

__all__ = ["Model"]

Model = only_named("Model")
