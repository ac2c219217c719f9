"""`from azureml.core.experiment import Experiment`."""
from azureml.core._workspace_only import no_workspace, unavailable

__all__ = ["Experiment"]


class Experiment(object):
    """The experiment that a run belongs to: its name."""

    def __init__(self, workspace=None, name=None, **_):
        self.name = name

    @property
    def workspace(self):
        """Not available."""
        raise no_workspace("the workspace of an experiment")

    start_logging = unavailable("Experiment.start_logging")
    submit = unavailable("Experiment.submit")
    get_runs = unavailable("Experiment.get_runs")

    def __repr__(self):
        return "Experiment(Name: {})".format(self.name)
