"""Azure ML's `Run` as training scripts know it: what is logged appears in the run's metrics, tags and outputs.

Without the service (no `ESTIMATORD_RECORDS` in the environment) it prints what is logged.
"""
import json
import os
import threading

from azureml.core._files import Outputs
from azureml.core._recorder import Recorder, plain, rank

__all__ = ["Experiment", "Run", "Workspace"]

NO_WORKSPACE = "estimatord runs this script without an Azure ML workspace: {} is not available"


class Workspace(object):
    """There is no workspace; asking for one says so."""

    def __init__(self, *_, **__):
        raise RuntimeError(NO_WORKSPACE.format("Workspace"))

    @staticmethod
    def get(*_, **__):
        """Not available."""
        raise RuntimeError(NO_WORKSPACE.format("Workspace.get()"))

    @staticmethod
    def from_config(*_, **__):
        """Not available."""
        raise RuntimeError(NO_WORKSPACE.format("Workspace.from_config()"))


class Experiment(object):
    """The experiment that a run belongs to: its name."""

    def __init__(self, workspace=None, name=None, **_):
        self.name = name

    @property
    def workspace(self):
        """Not available."""
        raise RuntimeError(NO_WORKSPACE.format("the workspace of an experiment"))

    def __repr__(self):
        return "Experiment(Name: {})".format(self.name)


class Run(object):
    """The run that this process is part of: `Run.get_context()`."""

    _context = None
    _context_lock = threading.Lock()

    def __init__(self, experiment=None, run_id=None, **_):
        if experiment is not None or run_id is not None:
            raise RuntimeError(NO_WORKSPACE.format("another run than Run.get_context()"))
        environment = os.environ
        self._id = environment.get("AZUREML_RUN_ID", "OfflineRun")
        self._experiment = Experiment(name=environment.get("AZUREML_ARM_PROJECT_NAME"))
        self._recorder = Recorder(environment.get("ESTIMATORD_RECORDS"))
        self._outputs = Outputs(environment.get("ESTIMATORD_OUTPUTS") or os.path.abspath("outputs"))
        self._parent = None
        self._tags = _tags(environment.get("ESTIMATORD_TAGS"))
        self._properties = {}
        self._metrics = {}
        self._status = "Running"
        self._children = 0

    @classmethod
    def get_context(cls, allow_offline=True, used_for_context_manager=False, **_):
        """The run of this process; every call gives the same one."""
        with Run._context_lock:
            if Run._context is None:
                Run._context = cls()
            if not allow_offline and not Run._context._recorder.is_recording:
                raise RuntimeError("this script was not started by estimatord, and allow_offline is false")
            return Run._context

    # What it is.

    @property
    def id(self):
        """The run's id; of a child run, the parent's with a number."""
        return self._id

    @property
    def number(self):
        """Runs have no numbers here: 1."""
        return 1

    @property
    def name(self):
        """The run's id."""
        return self._id

    display_name = name

    @property
    def experiment(self):
        """The experiment: its name."""
        return self._experiment

    @property
    def parent(self):
        """The run that made this one with `child_run`; none for the run itself."""
        return self._parent

    @property
    def type(self):
        """What kind of run it is."""
        return "azureml.scriptrun"

    @property
    def status(self):
        """The status as this process knows it."""
        return self._status

    @property
    def tags(self):
        """The tags as this process knows them."""
        return dict(self._tags)

    @property
    def properties(self):
        """What this process added."""
        return dict(self._properties)

    @property
    def input_datasets(self):
        """Where inputs are: the environment, in which each has a variable of its name."""
        return os.environ

    def get_status(self):
        """The status as this process knows it."""
        return self._status

    def get_details(self):
        """What of the run is known to this process."""
        return {"runId": self._id, "status": self._status, "properties": self.properties, "tags": self.tags}

    def get_environment(self):
        """Not available."""
        raise RuntimeError(NO_WORKSPACE.format("get_environment()"))

    def __repr__(self):
        return "Run(Experiment: {}, Id: {}, Status: {})".format(self._experiment.name, self._id, self._status)

    # Metrics.

    def log(self, name, value, description="", step=None):
        """Logs a number, a text or a boolean."""
        try:
            value = plain(value)
            step = None if step is None else int(step)
        except (TypeError, ValueError, OverflowError) as error:
            return self._recorder.warn("`{}` was not recorded: {}".format(name, error))
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if value is None or isinstance(value, (list, dict)):
            message = "`{}` was not recorded: log() takes a number, a text or a boolean; log_list() takes lists"
            return self._recorder.warn(message.format(name))
        return self._log("scalar", name, value, description, step)

    def log_list(self, name, value, description=""):
        """Logs a list of values."""
        return self._convert_and_log("list", name, value, description, list)

    def log_row(self, name, description=None, **kwargs):
        """Logs a row of named values."""
        return self._convert_and_log("row", name, kwargs, description, dict)

    def log_table(self, name, value, description=""):
        """Logs a table: columns by name, each a value or a list."""
        return self._convert_and_log("table", name, value, description, dict)

    def log_accuracy_table(self, name, value, description=""):
        """Logs an accuracy table as it is given."""
        return self._log_document("accuracy_table", name, value, description)

    def log_confusion_matrix(self, name, value, description=""):
        """Logs a confusion matrix as it is given."""
        return self._log_document("confusion_matrix", name, value, description)

    def log_predictions(self, name, value, description=""):
        """Logs predictions as they are given."""
        return self._log_document("predictions", name, value, description)

    def log_residuals(self, name, value, description=""):
        """Logs residuals as they are given."""
        return self._log_document("residuals", name, value, description)

    def log_image(self, name, path=None, plot=None, description=""):
        """Keeps an image, from a file or a plot of matplotlib, among the outputs."""
        if (path is None) == (plot is None):
            raise ValueError("log_image() takes either `path` or `plot`")
        kept = self._outputs.put_image(name, path, plot)
        return self._log("image", name, {"path": kept.replace(os.sep, "/")}, description, None)

    def get_metrics(self, name=None, **_):
        """What this process logged, by name: a value, or the list of them where there are several."""
        found = {key: values[0] if len(values) == 1 else list(values) for key, values in self._metrics.items()}
        return found if name is None else {key: value for key, value in found.items() if key == name}

    def _log_document(self, kind, name, value, description):
        if isinstance(value, str):
            value = json.loads(value)
        return self._convert_and_log(kind, name, value, description, dict)

    def _convert_and_log(self, kind, name, value, description, expected):
        try:
            value = plain(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            return self._recorder.warn("`{}` was not recorded: {}".format(name, error))
        if not isinstance(value, expected):
            message = "`{}` was not recorded: a {} is made of a {}"
            return self._recorder.warn(message.format(name, kind, expected.__name__))
        return self._log(kind, name, value, description, None)

    def _log(self, kind, name, value, description, step):
        members = {"kind": kind, "value": value}
        if description:
            members["description"] = str(description)
        if step is not None:
            members["step"] = step
        if self._parent is not None:
            members["child"] = self._id
        if not self._recorder.is_recording:
            print("Attempted to log {} metric {}:\n{}".format(kind, name, value))
        if self._recorder.record("metric", name, **members):
            self._metrics.setdefault(name, []).append(value)

    # Tags and properties.

    def tag(self, key, value=None):
        """Sets a tag of the run."""
        value = None if value is None else str(value)
        if self._recorder.record("tag", key, value=value):
            self._tags[key] = value

    def set_tags(self, tags):
        """Sets tags of the run."""
        for key, value in tags.items():
            self.tag(key, value)

    def get_tags(self):
        """The tags as this process knows them."""
        return self.tags

    def remove_tags(self, tags):
        """Removes tags of the run."""
        for key in [tags] if isinstance(tags, str) else list(tags):
            if self._recorder.record("tag_removed", key):
                self._tags.pop(key, None)
        return self.tags

    def add_properties(self, properties):
        """Adds properties to the run."""
        for key, value in properties.items():
            if self._recorder.record("property", key, value=str(value)):
                self._properties[key] = str(value)

    def get_properties(self):
        """What this process added."""
        return self.properties

    # Files.

    def upload_file(self, name, path_or_stream, **_):
        """Keeps a file among the outputs of the run, at once."""
        return self._outputs.put(name, path_or_stream)

    def upload_files(self, names, paths, **_):
        """Keeps several files among the outputs of the run."""
        names, paths = list(names), list(paths)
        if len(names) != len(paths):
            raise ValueError("{} names for {} paths".format(len(names), len(paths)))
        return [self._outputs.put(name, path) for name, path in zip(names, paths)]

    def upload_folder(self, name, path, **_):
        """Keeps the files of a folder among the outputs of the run."""
        return self._outputs.put_folder(name, path)

    # Its life.

    def start(self):
        """Nothing to do: it runs."""

    def flush(self, timeout_seconds=300):
        """Nothing to do: what is logged is written at once."""

    def complete(self, _set_status=True):
        """Says that the work is done. How the run ends is decided by how its script ends."""
        self._end("Completed", status="completed")

    def fail(self, error_details=None, error_code=None, _set_status=True):
        """Says that the run has failed. It ends `Failed`, also when the script ends without an error."""
        members = {"status": "failed", "message": "" if error_details is None else str(error_details)}
        if error_code is not None:
            members["code"] = str(error_code)
        self._end("Failed", **members)

    def cancel(self):
        """Not available from within: the service is asked for it."""
        raise RuntimeError("a script cannot cancel its own run: end it, or ask estimatord to cancel the run")

    def wait_for_completion(self, *_, **__):
        """Not available from within: it would wait for itself."""
        raise RuntimeError("a script cannot wait for its own run")

    def _end(self, word, **members):
        self._status = word
        # A child's end is not the run's.
        if self._parent is None:
            self._recorder.record("status", None, **members)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        if error is None or isinstance(error, SystemExit) and not error.code:
            self.complete()
        else:
            self.fail(error_details=error if str(error) else kind.__name__)
        return False

    # Children: they log under the run itself, marked with their id.

    def child_run(self, name=None, run_id=None, outputs=None, **_):
        """A part of this run whose metrics carry its id."""
        with Run._context_lock:
            child = object.__new__(Run)
            child.__dict__.update(self.__dict__)
            self._children += 1
            child._id = run_id or "{}_{}".format(self._id, self._children)
            child._parent, child._metrics, child._status, child._children = self, {}, "Running", 0
            child._tags, child._properties = dict(self._tags), {}
        return child

    def create_children(self, count=None, tag_key=None, tag_values=None):
        """Several parts of this run."""
        count = len(tag_values) if count is None else count
        return [self.child_run() for _ in range(count)]

    def get_children(self, *_, **__):
        """Not available."""
        raise RuntimeError(NO_WORKSPACE.format("get_children()"))


def _tags(text):
    try:
        return dict(json.loads(text or "{}"))
    except (TypeError, ValueError):
        return {}
