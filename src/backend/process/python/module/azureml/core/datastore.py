"""`from azureml.core.datastore import Datastore`: the name only."""
from azureml.core._workspace_only import only_named

__all__ = ["Datastore"]

Datastore = only_named("Datastore")
