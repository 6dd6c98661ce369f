"""The command line as a user sees it: what is printed where, every exit code, every error in one sentence."""

import builtins
import errno
import json
import subprocess
import sys
import tomllib

import pytest
from typer.testing import CliRunner

import edgetk
from edgetk.core.errors import EdgetkError, MissingExtra
from edgetk.toolkit import runner as running
from edgetk.toolkit.cli import app
from edgetk.toolkit.commands import shared

COMMANDS = ("compress", "train", "evaluate", "stream", "inspect", "bench", "view", "list", "data", "doctor")

PLAIN = """
schema_version = 1
model = "lmuformer-xs"
targets = ["raspberry-pi-5"]
"""


@pytest.fixture(autouse=True)
def _settings():
    yield
    shared.settings = shared.Settings()


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="edgetk")


def sentence(done):
    """The one line on stderr of a call that failed; no traceback, nothing on stdout."""
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "plain.toml"
    path.write_text(PLAIN)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run without passes: (what was printed, its folder)."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "plain.toml").write_text(PLAIN)
    done = call("compress", "--recipe", folder / "plain.toml", "-o", folder / "runs", "--json")
    assert done.exit_code == 0, done.stderr
    (made,) = (folder / "runs").iterdir()
    return done, made


# help, version, what does not exist


def test_help_names_every_command():
    text = call("--help").stdout
    assert all(f" {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    done = call(command, "--help")
    assert done.exit_code == 0
    assert f"Usage: edgetk {command}" in done.stdout


def test_version():
    assert call("--version").stdout == f"edgetk {edgetk.__version__}\n"


def test_python_m_edgetk_works_and_fails_with_the_code():
    done = subprocess.run([sys.executable, "-m", "edgetk", "inspect", "no-such"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("model 'no-such': no such model; ")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["compres"], "edgetk: No such command 'compres'. Did you mean 'compress', 'compare'? (see: edgetk --help)"),
        (["compress", "--modle", "x"], "edgetk compress: No such option: --modle"),
        (["evaluate"], "edgetk evaluate: Missing argument 'MODEL' (see: edgetk evaluate --help)"),
        (["compress", "--seed", "x"], "edgetk compress: Invalid value for '--seed': "),
        (["view", "x", "--port", "70000"], "edgetk view: Invalid value for '--port': "),
        (["list", "model"], "list: the kind must be one of models, passes, tasks, exporters, targets, recipes, got 'model'"),
        (["compress", "--recipe", "defalt"], "recipe 'defalt': no such recipe; "),
        (["compress", "--recipe", "{plain}", "--model", "lmuformr"], "model 'lmuformr': no such model; did you mean lmuformer"),
        (["compress", "--recipe", "{plain}", "--target", "jetsn"], "jetsn"),
        (["compress", "--recipe", "{plain}", "--max-drop", "3"], "goals: max_drop must be in [0, 1], got 3.0; 0.01 is"),
        (["compress", "--recipe", "{plain}", "--task", "speech"], "task 'speech': no such task; did you mean speech-commands?"),
        (["data", "--task", "speech"], "task 'speech': no such task; did you mean speech-commands?"),
        (["inspect", "ds-cnn", "--target", "jetsn"], "jetsn"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_usage_errors_end_with_2(arguments, text, plain, tmp_path):
    done = call(*(a.format(plain=plain) for a in arguments), *(["-o", tmp_path / "runs"] if "--recipe" in arguments else []))
    assert text in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert done.exit_code == 2


# errors in general


def failing(monkeypatch, error):
    def run(*arguments, **options):
        raise error

    monkeypatch.setattr(running, "run", run)


def test_edgetk_errors_are_one_sentence_and_their_code(monkeypatch, plain):
    failing(monkeypatch, EdgetkError("somebody: must hold,\n got nothing; do something"))
    done = call("compress", "--recipe", plain)
    assert sentence(done) == "somebody: must hold, got nothing; do something"
    assert done.exit_code == 1


def test_a_missing_extra_ends_with_4(monkeypatch, plain):
    failing(monkeypatch, MissingExtra("quantize", "brevitas", "all"))
    done = call("compress", "--recipe", plain)
    assert sentence(done) == ("quantize: needs the package brevitas, which is not installed; run: pip install 'edgetk[all]'")
    assert done.exit_code == 4


def test_ctrl_c_says_how_to_go_on(monkeypatch, plain):
    failing(monkeypatch, KeyboardInterrupt())
    done = call("compress", "--recipe", plain)
    assert sentence(done) == (
        "edgetk compress: interrupted; what is finished is kept, the same command with --resume goes on from there"
    )
    assert done.exit_code == 130


def test_errors_of_the_system_name_the_file(monkeypatch, plain):
    failing(monkeypatch, OSError(errno.ENOSPC, "No space left on device", "/somewhere/model.onnx"))
    done = call("compress", "--recipe", plain)
    assert sentence(done) == (
        "edgetk compress: No space left on device (/somewhere/model.onnx); check the path, its permissions and the free space"
    )
    assert done.exit_code == 1


def test_a_fault_of_edgetk_says_so_and_debug_shows_all_of_it(monkeypatch, plain):
    failing(monkeypatch, TypeError("a and b"))
    done = call("compress", "--recipe", plain)
    assert sentence(done) == (
        "edgetk compress: TypeError: a and b; this is a fault of edgetk, --debug shows the traceback to report"
    )
    assert done.exit_code == 1
    for arguments in (["--debug", "compress"], ["compress", "--debug"]):
        done = call(*arguments, "--recipe", plain)
        assert isinstance(done.exception, TypeError)


# compress


def test_dry_run_prints_the_resolved_recipe_and_writes_nothing(plain, tmp_path):
    done = call("compress", "--recipe", plain, "--dry-run", "--seed", "7", "--max-drop", "0.02", "-t", "host", "-t", "jetson",
                "-o", tmp_path / "runs")  # fmt: skip
    written = tomllib.loads(done.stdout)
    assert written["seed"] == 7
    assert written["targets"] == ["host", "jetson-orin-nano-8g"]  # the board the alias stands for
    assert written["goals"]["max_drop"] == 0.02
    assert not (tmp_path / "runs").exists()


def test_the_printed_recipe_can_be_handed_back(plain, tmp_path):
    first = call("compress", "--recipe", plain, "--dry-run").stdout
    (tmp_path / "plain.toml").write_text(first)
    assert call("compress", "--recipe", tmp_path / "plain.toml", "--dry-run").stdout == first


def test_json_stands_alone_on_stdout_and_logs_go_to_stderr(run):
    done, folder = run
    printed = json.loads(done.stdout)
    assert printed == json.loads((folder / "report.json").read_text())
    assert "target: raspberry-pi-5 (power mode " in done.stderr


def test_the_report_has_what_it_must(run):
    printed = json.loads(run[0].stdout)
    assert {"schema_version", "model", "target", "accuracy", "passes", "artifacts", "figures"} <= set(printed)
    for side in ("before", "after"):
        assert {"top1", "n", "ci95"} <= set(printed["accuracy"][side])
    for artifact in printed["artifacts"]:
        assert {"path", "format", "sha256", "size_bytes", "parity"} <= set(artifact)
    for figure in printed["figures"]:
        assert {"artifact", "target", "metric", "kind", "unit"} <= set(figure)
    assert printed["target"] == "raspberry-pi-5"


def test_the_page_is_written_beside_it(run):
    page = (run[1] / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "lmuformer-xs → raspberry-pi-5" in page


def test_a_missed_goal_ends_with_3_and_keeps_everything(run, tmp_path):
    (tmp_path / "strict.toml").write_text(PLAIN + "[goals]\nmin_top1 = 0.99\n")
    done = call("compress", "--recipe", tmp_path / "strict.toml", "-o", tmp_path / "runs", "--quiet")
    assert done.exit_code == 3
    assert done.stderr.startswith("goals: min_top1: accuracy must be at least 99.00 %, got ")
    assert "goal missed: min_top1" in done.stdout
    (folder,) = (tmp_path / "runs").iterdir()
    assert {"model.onnx", "model.stream.onnx", "report.json", "report.html", "recipe.toml"} <= {
        p.name for p in folder.iterdir()
    }
    assert done.stdout.rstrip().endswith(f"report: {folder / 'report.html'}")


def test_an_output_that_cannot_be_written_is_said(plain, tmp_path):
    (tmp_path / "file").write_text("x")
    done = call("compress", "--recipe", plain, "-o", tmp_path / "file")
    assert done.exit_code == 1
    assert "choose another folder" in done.stderr.splitlines()[-1]


# evaluate


def test_evaluate_scores_both_forms_of_an_export_alike(run):
    _, folder = run
    found = {}
    for name in ("model.onnx", "model.stream.onnx"):
        done = call("evaluate", folder / name, "--json", "--quiet")
        assert done.exit_code == 0, done.stderr
        found[name] = json.loads(done.stdout)
        assert done.stderr == ""
    clip, stream = found["model.onnx"], found["model.stream.onnx"]
    assert (clip["form"], stream["form"]) == ("clip", "stream")
    assert clip["n"] == clip["all"]["n"] == 160
    assert clip["top1"] == stream["top1"]
    low, high = clip["ci95"]
    assert 0 <= low <= clip["top1"] <= high <= 1


def test_evaluate_prints_n_and_interval(run):
    done = call("evaluate", run[1] / "model.onnx", "--split", "validation", "--task", "speech-commands")
    assert "accuracy" in done.stdout
    assert "(n=256, 95 % interval " in done.stdout


def test_evaluate_warns_of_random_weights(monkeypatch, tmp_path):
    from edgetk.toolkit import source

    monkeypatch.setattr(source, "WEIGHTS", tmp_path)
    done = call("evaluate", "lmuformer-xs", "--json")
    assert "warning: lmuformer-xs comes without trained weights, its answers are random" in done.stderr
    assert json.loads(done.stdout)["n"] == 160


def test_evaluate_needs_a_task(tmp_path, monkeypatch):
    (tmp_path / "my_nets_a.py").write_text(
        "import torch\ndef make():\n    net = torch.nn.Linear(4, 2)\n    net.example = torch.zeros(1, 4)\n    return net\n"
    )
    monkeypatch.chdir(tmp_path)
    done = call("evaluate", "my_nets_a:make")
    assert sentence(done) == "evaluate: my_nets_a:make must have a task, got none in it; name one with --task"
    assert done.exit_code == 2


@pytest.mark.parametrize("name", ["x.onnx", "x.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"not a model"], ids=["missing", "empty", "garbage"])
def test_wrong_model_files_are_refused(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = call("evaluate", tmp_path / name)
    assert str(tmp_path / name) in sentence(done)
    assert done.exit_code == 1


def test_a_folder_without_data_is_refused(run, tmp_path):
    done = call("evaluate", run[1] / "model.onnx", "--data", tmp_path)
    assert sentence(done) == (
        f"{tmp_path}: must hold test.parquet and its like or one folder of sounds per word, got neither; run: edgetk data"
    )
    assert done.exit_code == 1


# list, data, view


def test_list_shows_what_there_is():
    done = call("list", "--names")
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert {"models:", "lmuformer", "ds-cnn", "targets:", "jetson-orin-nano-8g", "speech-commands", "onnx"} <= set(lines)


def test_list_json_says_what_is_trained():
    rows = {row["name"]: row for row in json.loads(call("list", "models", "--json").stdout)["models"]}
    assert rows["lmuformer"]["problem"] is None
    assert rows["lmuformer-xs"]["trained"] in (True, False)


def test_list_targets_says_aliases_and_whether_they_are_measured():
    lines = call("list", "targets").stdout.splitlines()
    jetson = next(line for line in lines if line.startswith("jetson-orin-nano-8g"))
    assert "numbers assumed (also: jetson" in jetson
    assert "measured here" in next(line for line in lines if line.startswith("host"))


def test_broken_plug_ins_are_shown_as_broken(tmp_path, monkeypatch):
    info = tmp_path / "broken_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgetk.passes]\nbroken = broken_plugin_module:PASS\n")
    (tmp_path / "broken_plugin_module.py").write_text("raise RuntimeError('kaputt')\n")
    monkeypatch.syspath_prepend(tmp_path)
    done = call("list", "passes")
    assert done.exit_code == 0
    line = next(line for line in done.stdout.splitlines() if line.startswith("broken"))
    assert "BROKEN: pass broken: broken_plugin_module must import and define PASS, got RuntimeError: kaputt" in line


def test_list_recipes_shows_those_of_compress_and_of_train():
    rows = {row["name"]: row for row in json.loads(call("list", "recipes", "--json").stdout)["recipes"]}
    assert {"default", "export", "train/paper"} <= set(rows)
    assert rows["train/paper"]["problem"] is None
    assert "published recipe" in rows["train/paper"]["description"]


def test_data_says_where_and_how():
    done = call("data")
    assert "embedded" in done.stdout
    assert "speech_commands_v0.02.tar.gz" in done.stdout
    assert json.loads(call("data", "--json").stdout)["folder"] is None


def test_data_verifies_the_sample():
    assert "verified         whole" in call("data", "--verify").stdout


def test_data_with_problems_ends_with_1(monkeypatch):
    from edgetk.tasks.speech_commands import SpeechCommands

    monkeypatch.setattr(SpeechCommands, "verify", lambda self, folder: ["a.wav: is empty", "b.wav: is empty"])
    done = call("data", "--verify", "--json", "--quiet")
    assert json.loads(done.stdout)["problems"] == ["a.wav: is empty", "b.wav: is empty"]
    assert done.stderr == "data: the embedded sample must be whole, got: a.wav: is empty and 1 more; get it again\n"
    assert done.exit_code == 1


def test_view_needs_a_file():
    done = call("view", "no-such.onnx")
    assert sentence(done) == (
        "view: the file must exist, got no-such.onnx; edgetk compress writes model.onnx into its run folder"
    )
    assert done.exit_code == 1


def test_view_without_netron_names_the_extra(run, monkeypatch):
    real = builtins.__import__

    def without_netron(name, *arguments, **options):
        if name == "netron":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_netron)
    done = call("view", run[1] / "model.onnx")
    assert sentence(done) == "view: needs the package netron, which is not installed; run: pip install 'edgetk[view]'"
    assert done.exit_code == 4


def test_view_serves_and_prints_the_address(run):
    import urllib.request

    command = [sys.executable, "-m", "edgetk", "view", str(run[1] / "model.onnx"), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().strip()
            with urllib.request.urlopen(address, timeout=20) as answer:
                assert answer.status == 200
        finally:
            process.terminate()
            process.communicate()


# doctor


def test_doctor_json():
    found = json.loads(call("doctor", "--json").stdout)
    assert found["edgetk"] == edgetk.__version__
    assert set(found["measures"]) == {"latency", "on a GPU", "on boards", "energy", "board state"}


def test_doctor_says_what_is_missing(monkeypatch):
    from edgetk.toolkit import doctor

    monkeypatch.setattr(doctor, "requirements", lambda: {"": ("rich", "no-such-package"), "view": ("no-such-netron",)})
    text = call("doctor").stdout
    assert "NOT INSTALLED; run: pip install no-such-package" in text
    assert "no-such-netron not installed; run: pip install 'edgetk[view]'" in text
