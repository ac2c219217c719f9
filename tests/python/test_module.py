"""The `azureml` module that scripts are given, used by real interpreters as scripts use it."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.path.join(os.path.dirname(__file__), "..", "..", "src", "backend", "process", "python")
START = "from azureml.core import Run\nrun = Run.get_context()\n"


class Module(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.root)
        for name in ("records", "work/outputs", "own"):
            os.makedirs(os.path.join(self.root, name))
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.path.join(os.path.abspath(SOURCE), "site"),
            "AZUREML_RUN_ID": "the-run",
            "AZUREML_ARM_PROJECT_NAME": "digits",
            "ESTIMATORD_RECORDS": os.path.join(self.root, "records"),
            "ESTIMATORD_OUTPUTS": os.path.join(self.root, "work/outputs"),
            "ESTIMATORD_TAGS": '{"team": "vision"}',
        }

    def start(self, script, **environment):
        return subprocess.Popen(
            [sys.executable, "-c", script], cwd=os.path.join(self.root, "work"), universal_newlines=True,
            env=dict(self.environment, **environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run_script(self, script, code=0, **environment):
        process = self.start(script, **environment)
        out, err = process.communicate()
        self.assertEqual(process.returncode, code, err)
        return out, err

    def records(self):
        """The records of every file, by file name."""
        found = {}
        for name in sorted(os.listdir(self.environment["ESTIMATORD_RECORDS"])):
            with open(os.path.join(self.environment["ESTIMATORD_RECORDS"], name)) as file:
                found[name] = [json.loads(line) for line in file]
        return found

    def lines(self):
        """The records of the one file that there is."""
        (lines,) = self.records().values()
        return lines

    def write(self, path, text):
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def outputs(self):
        root, found = self.environment["ESTIMATORD_OUTPUTS"], {}
        for directory, _, files in os.walk(root):
            for name in files:
                path = os.path.join(directory, name)
                with open(path) as file:
                    found[os.path.relpath(path, root)] = file.read()
        return found

    def test_a_script_of_the_documentation_logs(self):
        out, err = self.run_script(
            "from azureml.core.run import Run\nrun = Run.get_context()\nrun.log('accuracy', 0.97)\nrun.log('n', 3, step=7)\n"
            "print(run.id, run.experiment.name, run.parent, run.get_tags(), Run.get_context() is run)")
        self.assertEqual((out, err), ("the-run digits None {'team': 'vision'} True\n", ""))
        first, second = self.lines()
        self.assertEqual((first["type"], first["kind"], first["name"], first["value"]), ("metric", "scalar", "accuracy", 0.97))
        self.assertEqual((second["value"], second["step"], second["sequence"]), (3, 7, 1))
        self.assertNotIn("step", first)

    def test_every_kind_of_metric(self):
        self.run_script(START + (
            "run.log_list('l', [1, 2.5, 'x'], description='d')\nrun.log_row('r', x=1, y=float('nan'))\n"
            "run.log_table('t', {'x': [1, 2], 'y': 3})\nrun.log_confusion_matrix('c', {'schema_type': 'm', 'data': {}})\n"
            "run.log_residuals('e', '{\"data\": 1}')\nrun.log('inf', float('-inf'))\nrun.log('big', 10**30)\nrun.log('b', True)"))
        seen = [(line["kind"], line["value"]) for line in self.lines()]
        self.assertEqual(seen, [
            ("list", [1, 2.5, "x"]), ("row", {"x": 1, "y": "NaN"}), ("table", {"x": [1, 2], "y": 3}),
            ("confusion_matrix", {"schema_type": "m", "data": {}}), ("residuals", {"data": 1}),
            ("scalar", "-Infinity"), ("scalar", 10 ** 30), ("scalar", True)])
        self.assertEqual(self.lines()[0]["description"], "d")

    def test_numbers_of_other_libraries_are_taken(self):
        self.run_script(START + (
            "class Scalar:\n    def item(self): return 0.5\n"
            "class Array:\n    def tolist(self): return [1, 2]\n"
            "class Variable:\n    array = Array()\n"
            "run.log('s', Scalar()); run.log_list('a', Array()); run.log_list('v', Variable())"))
        self.assertEqual([line["value"] for line in self.lines()], [0.5, [1, 2], [1, 2]])

    def test_a_metric_never_ends_the_script(self):
        out, err = self.run_script(START + (
            "run.log('o', object())\nrun.log('l', [1, 2])\nrun.log('', 1)\nrun.log('x' * 256, 1)\nrun.log(3, 1)\n"
            "run.log('long', 'x' * 2**20)\nrun.log('o', object())\nrun.log('fine', 1)\nprint('done')"))
        self.assertEqual(out, "done\n")
        self.assertEqual([line["name"] for line in self.lines()], ["fine"])
        self.assertEqual(err.count("`o` was not recorded: a value of type object cannot be recorded"), 1, "said once")
        self.assertIn("`long` was not recorded: it has 10", err)
        self.assertIn("log_list() takes lists", err)

    def test_a_directory_that_is_gone_never_ends_the_script(self):
        out, err = self.run_script(START + "run.log('a', 1)\nprint('done')", ESTIMATORD_RECORDS="/gone/for/good")
        self.assertEqual(out, "done\n")
        self.assertIn("`a` was not recorded", err)

    def test_what_was_logged_survives_a_kill_right_after(self):
        process = self.start(START + "import os, signal\nrun.log('a', 1)\nos.kill(os.getpid(), signal.SIGKILL)")
        process.communicate()
        self.assertEqual(process.returncode, -signal.SIGKILL)
        self.assertEqual([line["name"] for line in self.lines()], ["a"])

    def test_each_process_has_a_file_and_each_file_its_rank(self):
        self.run_script(START + (
            "import os\nrun.log('parent', 1)\nchild = os.fork()\nrun.log('child' if child == 0 else 'after', 1)\n"
            "if child: os.waitpid(child, 0)\n"), PMI_RANK="4")
        found = {tuple(line["name"] for line in lines) for lines in self.records().values()}
        self.assertEqual(found, {("parent", "after"), ("child",)})
        self.assertTrue(all(name.startswith("4-") for name in self.records()))

    def test_threads_do_not_mix_their_lines(self):
        self.run_script(START + (
            "import threading\n"
            "def work(n):\n    for i in range(200): run.log('t%d' % n, 'x' * 1000, step=i)\n"
            "threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]\n"
            "[t.start() for t in threads]; [t.join() for t in threads]"))
        lines = self.lines()
        self.assertEqual([line["sequence"] for line in lines], list(range(1600)))
        for n in range(8):
            self.assertEqual([l["step"] for l in lines if l["name"] == "t%d" % n], list(range(200)))

    def test_tags_properties_and_ends(self):
        out, _ = self.run_script(START + (
            "run.tag('a', 1); run.tag('b'); run.set_tags({'c': 'x'}); run.remove_tags(['team'])\n"
            "run.add_properties({'p': 2})\nprint(sorted(run.get_tags()), run.get_properties())\nrun.complete()\n"
            "run.fail('diverged', 3)"))
        self.assertEqual(out, "['a', 'b', 'c'] {'p': '2'}\n")
        seen = [(line["type"], line.get("name"), line.get("value"), line.get("status")) for line in self.lines()]
        self.assertEqual(seen, [
            ("tag", "a", "1", None), ("tag", "b", None, None), ("tag", "c", "x", None), ("tag_removed", "team", None, None),
            ("property", "p", "2", None), ("status", None, None, "completed"), ("status", None, None, "failed")])
        self.assertEqual((self.lines()[-1]["message"], self.lines()[-1]["code"]), ("diverged", "3"))

    def test_an_error_within_the_run_is_its_failure(self):
        self.run_script(START + "with run:\n    raise ValueError('no data')", code=1)
        self.assertEqual([(l["status"], l["message"]) for l in self.lines()], [("failed", "ValueError: no data")])

    def test_children_log_under_the_run_and_their_end_is_not_its_end(self):
        out, _ = self.run_script(START + (
            "with run.child_run() as child: child.log('a', 1)\nprint(child.id, child.parent is run)"))
        child, same = out.split()
        self.assertRegex(child, "^the-run_1_[0-9a-f]{8}$")
        self.assertEqual([(line["name"], line["child"], same) for line in self.lines()], [("a", child, "True")])

    def test_uploads_are_outputs(self):
        self.write("work/model.txt", "weights")
        self.write("work/plots/deep/a.txt", "plot")
        self.write("work/outputs/there.txt", "own")
        self.run_script(START + (
            "import io\nrun.upload_file('outputs/m/model.txt', 'model.txt')\nrun.upload_file('bytes', io.BytesIO(b'b'))\n"
            "run.upload_folder('plots', 'plots')\nrun.upload_file('outputs/there.txt', 'outputs/there.txt')\n"
            "run.log_image('a picture', path='model.txt')"))
        found = self.outputs()
        (image,) = [name for name in found if name.startswith("images/a_picture_")]
        self.assertEqual(found.pop(image), "weights")
        self.assertEqual(found, {"m/model.txt": "weights", "bytes": "b", "plots/deep/a.txt": "plot", "there.txt": "own"})
        self.assertEqual(self.lines()[0]["value"], {"path": image})

    def test_uploads_that_cannot_be_say_why(self):
        self.write("work/model.txt", "weights")
        for call, error in [
            ("run.upload_file('../x', 'model.txt')", "no name for an output"),
            ("run.upload_file('/x', 'model.txt')", "no name for an output"),
            ("run.upload_file('x', 'missing')", "there is no file 'missing'"),
            ("run.upload_folder('x', 'missing')", "there is no folder 'missing'"),
            ("run.upload_file('x', 'model.txt'); run.upload_file('x', 'model.txt')", "an output 'x' already"),
            ("run.upload_files(['a'], [])", "1 names for 0 paths"),
        ]:
            _, err = self.run_script(START + call, code=1)
            self.assertIn(error, err)
        self.assertEqual(list(self.outputs()), ["x"])

    def test_an_installed_module_wins(self):
        self.write("own/azureml/__init__.py", "__path__ = __import__('pkgutil').extend_path(__path__, __name__)")
        self.write("own/azureml/core/__init__.py", "REAL = True")
        self.append_to_path()
        out, _ = self.run_script("import azureml.core; print(azureml.core.REAL)")
        self.assertEqual(out, "True\n")

    def test_an_installed_part_and_ours_are_both_found(self):
        for installed in (True, False):
            self.write("own/azureml/telemetry/__init__.py", "REAL = True")
            if installed:
                self.write("own/azureml/__init__.py", "__path__ = __import__('pkgutil').extend_path(__path__, __name__)")
            self.append_to_path()
            out, _ = self.run_script(
                "import azureml.telemetry; from azureml.core import Run; print(azureml.telemetry.REAL, Run.get_context().id)")
            self.assertEqual(out, "True the-run\n")
            shutil.rmtree(os.path.join(self.root, "own"))

    def append_to_path(self):
        site = os.path.join(os.path.abspath(SOURCE), "site")
        self.environment["PYTHONPATH"] = os.pathsep.join([site, os.path.join(self.root, "own")])

    def test_a_sitecustomize_of_ones_own_has_its_turn(self):
        self.write("own/sitecustomize.py", "import os; os.environ['SEEN'] = __name__")
        self.append_to_path()
        out, _ = self.run_script(
            "import os, sys, sitecustomize; print(os.environ['SEEN'], os.path.dirname(sitecustomize.__file__), flush=True)\n"
            "import subprocess; subprocess.check_call([sys.executable, '-c', 'import azureml.core, os; print(os.environ[\"SEEN\"])'])")
        self.assertEqual(out.split(), ["sitecustomize", os.path.join(self.root, "own"), "sitecustomize"])

    def test_without_the_service_it_prints(self):
        bare = {"ESTIMATORD_RECORDS": "", "ESTIMATORD_OUTPUTS": "", "ESTIMATORD_TAGS": ""}
        out, err = self.run_script(START + "run.log('a', 1)\nprint(run.get_metrics())", **bare)
        self.assertIn("offline run: metric 'a' kind='scalar' value=1\n", out)
        self.assertIn("{'a': 1}", out)
        _, err = self.run_script("from azureml.core import Run; Run.get_context(allow_offline=False)", code=1, **bare)
        self.assertIn("was not started by estimatord", err)

    def test_what_needs_a_workspace_says_so(self):
        for call in ["run.experiment.workspace", "run.get_environment()", "from azureml.core import Workspace; Workspace.from_config()"]:
            _, err = self.run_script(START + call, code=1)
            self.assertIn("without an Azure ML workspace", err)


if __name__ == "__main__":
    unittest.main()
