"""The command line on a trained run: its help, its other commands, and what it says of errors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import maskedflow as mf
from commands import SMALL, call, declare, pair, run, table, write_csv

# --------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_comes_without_torch(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from maskedflow.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as exit_: assert exit_.code == 0\n"
        "print(sorted({'torch', 'numpy', 'matplotlib', 'pyarrow'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert len(done.stdout.splitlines()) > 1


def test_python_m_maskedflow() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "maskedflow", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == mf.__version__


def test_help_tells_every_option_of_the_design(capsys: pytest.CaptureFixture[str]) -> None:
    _, text, _ = call(capsys, "train", "--help")
    promised = (
        "dataset data auto flow hidden_dim num_layers epochs batch_size lr context time_limit "
        "patience seed resume data_dir out config"
    )
    assert {f"--{name}" for name in promised.split()} <= set(re.findall(r"--\w+", text))


def test_other_packages_add_commands_and_a_broken_one_stops_no_other(tmp_path: Path) -> None:
    declare(tmp_path, greet="greetings:greet", gone="greetings:gone", datasets="greetings:greet")
    (tmp_path / "greetings.py").write_text(
        "def greet(name: str, *, how_often: int = 1) -> None:\n"
        "    'Greet somebody.'\n"
        "    print(how_often * f'hello {name} ')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}

    def command(*words: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "maskedflow", *words],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        return done.returncode, done.stdout, done.stderr

    assert command("greet", "you", "--how-often", "2")[:2] == (0, "hello you hello you \n")
    code, out, err = command("--help")
    assert code == 0
    assert "Greet somebody." in out
    assert "List the known data sets" in out
    assert err.startswith("note: gone: cannot load greetings:gone: ")
    code, out, err = command("gone")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("maskedflow: gone: cannot load greetings:gone: ")
    code, out, err = command("schema", "--help")
    assert (code, err) == (0, "")


# ----------------------------------------------------------------------------------------- evaluate


def results(text: str) -> list[str]:
    return re.findall(r"^(?:NLL|BPD|log-l).*", text, re.MULTILINE)


def test_evaluate_repeats_what_train_found(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = folder / "own" / "results_summary.txt"
    before = results(summary.read_text())
    summary.unlink()
    code, out, _ = call(capsys, "evaluate", folder / "own", "--num_samples", 10)
    assert (code, len(before)) == (0, 4)
    assert results(out) == results(summary.read_text()) == before


def test_evaluate_finds_the_run_of_a_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--dataset", "moons", "--out", tmp_path)
    assert run("train", *words, "--epochs", 1, "--num_layers", 1, "--batch_size", 1000) == 0
    code, out, _ = call(capsys, "evaluate", *words)
    assert code == 0
    assert str(tmp_path / "moons") in out


def test_evaluate_a_table_that_moved(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = pair(tmp_path)
    assert run("train", "--data", data, "--out", tmp_path, *SMALL) == 0
    moved = data.rename(tmp_path / "moved.csv")
    code, _, err = call(capsys, "evaluate", tmp_path / "t")
    assert (code, err.count("\n")) == (2, 1)
    assert run("evaluate", tmp_path / "t", "--data", moved) == 0
    code, _, err = call(capsys, "evaluate", tmp_path / "t", "--data", folder / "own.csv")
    assert code == 2
    assert "columns" in err


# ------------------------------------------------------------------------------------------- sample


def test_sample_writes_the_same_rows_in_all_formats(folder: Path, tmp_path: Path) -> None:
    for suffix in ("csv", "parquet", "npy"):
        assert run("sample", folder / "own", "-n", 1500, "-o", tmp_path / f"s.{suffix}") == 0
    rows = np.load(tmp_path / "s.npy", allow_pickle=False)
    assert (rows.shape, rows.dtype) == ((1500, 3), np.float32)
    parquet = pq.read_table(tmp_path / "s.parquet")
    assert parquet.column_names == ["a", "b", "c"]
    np.testing.assert_array_equal(np.stack(list(parquet.to_pydict().values()), 1), rows)
    torch.testing.assert_close(mf.data.read_table(tmp_path / "s.csv"), torch.from_numpy(rows))
    # In the table's own units: its last column lies around 50.
    assert abs(np.median(rows[:, 2]) - 50) < 10


@pytest.mark.parametrize(
    "words",
    [
        "schema {folder}/own.csv -o {out}/s.toml",
        "sample {folder}/own -n 3 -o {out}/s.csv",
        "sample {folder}/own -n 3 -o {out}/s.png",
        "score {folder}/own {folder}/own.csv -o {out}/s.csv",
    ],
)
def test_missing_folders_are_made(words: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "one"
    assert run(*words.format(folder=folder, out=out).split()) == 0
    assert [path.stem for path in out.iterdir()] == ["s"]


def test_sample_follows_its_seed(folder: Path, tmp_path: Path) -> None:
    found = []
    for number, seed in enumerate((1, 1, 2)):
        path = tmp_path / f"{number}.npy"
        assert run("sample", folder / "own", "-n", 20, "--seed", seed, "-o", path) == 0
        found.append(np.load(path))
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


@pytest.mark.parametrize("name", ["own", "given"])
def test_sample_draws_a_picture(name: str, folder: Path, tmp_path: Path) -> None:
    context = ["--context", folder / "given.csv"] if name == "given" else []
    assert run("sample", folder / name, "-n", 3, *context, "-o", tmp_path / "s.png") == 0
    assert (tmp_path / "s.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_sample_and_score_with_a_context(folder: Path, tmp_path: Path) -> None:
    contexts = write_csv(tmp_path / "c.csv", ["other", "c"], np.array([[0.0, 40.0], [0.0, 60.0]]))
    words = ("sample", folder / "given", "-n", 700, "--context", contexts, "-o", tmp_path / "s.csv")
    assert run(*words) == 0
    assert mf.data.column_names(tmp_path / "s.csv") == ("a", "b", "c")
    rows = mf.data.read_table(tmp_path / "s.csv")
    assert rows[:, 2].tolist() == [40.0] * 700 + [60.0] * 700
    assert rows[:700, 0].mean() != rows[700:, 0].mean()

    assert run("score", folder / "given", tmp_path / "s.csv", "-o", tmp_path / "p.npy") == 0
    given = mf.load_run(folder / "given")
    assert given.context_columns == ("c",)
    expected = given.flow(rows[:, 2:]).log_prob(rows[:, :2])
    found = torch.from_numpy(np.load(tmp_path / "p.npy"))[:, 0]
    torch.testing.assert_close(found, expected.double(), atol=1e-5, rtol=1e-5)


# -------------------------------------------------------------------------------------------- score


def scores(path: Path) -> torch.Tensor:
    assert mf.data.column_names(path) == ("log_prob",)
    return mf.data.read_table(path)[:, 0]


def test_score_is_the_librarys_log_prob_row_by_row(folder: Path, tmp_path: Path) -> None:
    rows = np.tile(table(), (60, 1))  # more rows than are scored at once
    rows += np.random.default_rng(1).normal(size=rows.shape)
    found = mf.load_run(folder / "own")
    # Columns go by name, wherever they are.
    big = write_csv(tmp_path / "big.csv", ["c", "z", "a", "b"], rows[:, [2, 0, 0, 1]])
    assert run("score", folder / "own", big, "-o", tmp_path / "p.csv") == 0
    expected = found.flow().log_prob(torch.from_numpy(rows).float())
    torch.testing.assert_close(scores(tmp_path / "p.csv"), expected, atol=1e-5, rtol=1e-5)

    pq.write_table(pa.table(dict(zip("abc", rows.T, strict=True))), tmp_path / "big.parquet")
    np.save(tmp_path / "big.npy", rows)
    for name in ("big.parquet", "big.npy"):
        assert run("score", folder / "own", tmp_path / name, "-o", tmp_path / "p.parquet") == 0
        torch.testing.assert_close(scores(tmp_path / "p.parquet"), expected, atol=1e-5, rtol=1e-5)


def test_no_table_that_is_read_is_written_over(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_csv(tmp_path / "rows.csv", ["a", "b", "c"], table())
    before, link = rows.read_bytes(), tmp_path / "link.csv"
    link.symlink_to(rows)
    sampled = ("sample", folder / "given", "-n", 1, "--context", rows)
    for words in [("score", folder / "own", rows), ("score", folder / "own", link), sampled]:
        code, _, error = call(capsys, *words, "-o", rows)
        assert code == 2
        assert error == (
            f"maskedflow: -o {rows}: is the table that is read; expected another file\n"
        )
    assert rows.read_bytes() == before
    assert run("score", folder / "own", rows, "-o", tmp_path / "scores.csv") == 0
    assert run("score", folder / "own", rows, "-o", tmp_path / "scores.csv") == 0  # once more


def test_scores_are_in_the_tables_own_units(folder: Path, tmp_path: Path) -> None:
    rows = table()
    scaled = rows * np.array([1.0, 10.0, 1.0])
    data = write_csv(tmp_path / "own.csv", ["a", "b", "c"], scaled)
    assert run("train", "--data", data, "--out", tmp_path, *SMALL) == 0
    assert run("score", folder / "own", folder / "own.csv", "-o", tmp_path / "x.csv") == 0
    assert run("score", tmp_path / "own", data, "-o", tmp_path / "y.csv") == 0
    difference = scores(tmp_path / "y.csv") - scores(tmp_path / "x.csv")
    torch.testing.assert_close(
        difference, torch.full_like(difference, -np.log(10)), atol=1e-2, rtol=0
    )


def test_labels_make_images_conditional(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--hidden_dim", 70, "--num_layers", 1, "--epochs", 1, "--batch_size", 200)
    assert run("train", "--dataset", "digits", "--labels", "--out", tmp_path, *words) == 0
    found = mf.load_run(tmp_path / "digits")
    assert len(found.context_columns) == 10
    contexts = write_csv(tmp_path / "c.csv", found.context_columns, np.eye(10))
    out = tmp_path / "s.npy"
    assert run("sample", tmp_path / "digits", "-n", 2, "--context", contexts, "-o", out) == 0
    rows = np.load(out)
    assert rows.shape == (20, 74)
    assert set(np.unique(rows[:, :64])) <= set(range(17))
    code, out_text, _ = call(capsys, "score", tmp_path / "digits", out, "-o", tmp_path / "p.csv")
    assert (code, "20 rows" in out_text) == (0, True)
    assert scores(tmp_path / "p.csv").isfinite().all()


# ----------------------------------------------------------------------------------------- datasets


def test_datasets_lists_all(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = call(capsys, "datasets", "--data-dir", tmp_path)
    assert code == 0
    listed = [line.split()[0] for line in out.splitlines() if line.strip()]
    assert set(mf.data.NAMES) <= set(listed)


# ------------------------------------------------------------------------------------------- errors


def bad_table(folder: Path) -> Path:
    return write_csv(folder / "bad.csv", ["a", "b"], np.array([[1.0, np.nan], [2.0, 1.0]]))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("fly", "fly"),
        ("train", "--dataset, --data and --auto"),
        ("train --auto --dataset moons", "--dataset and --auto"),
        ("train --dataset nowhere --out {folder}/z", "nowhere"),
        ("train --dataset moons --height 3", "--height"),
        ("train --dataset moons --epochs many", "--epochs"),
        ("train --dataset moons --epochs 0", "--epochs"),
        ("train --dataset moons --epochs 2.5 --out {folder}/z", "--epochs 2.5"),
        ("train --dataset moons --config {folder}/half.toml --out {folder}/z", "--epochs 2.5"),
        ("train --dataset moons --lr -1", "--lr"),
        ("train --dataset moons --flow glew", "glew"),
        ("train --dataset moons --flow glow --out {folder}/z", "flow: Glow expects images"),
        ("train --dataset digits --flow glow --batch_norm --out {folder}/z", "--batch_norm"),
        ("train --dataset moons --dataset", "--dataset"),
        ("train --dataset moons --flow made --num_layers 3", "--num_layers"),
        ("train --dataset moons --labels --out {folder}/z", "labels"),
        ("train --dataset moons --context x", "--context"),
        ("train --dataset power --data_dir {folder} --out {folder}/z", "household_power"),
        ("train --data {folder}/none.csv --out {folder}/z", "none.csv"),
        ("train --data {folder}/bad.csv --out {folder}/z", "row 1"),
        ("train --data {folder}/own.csv --context q --out {folder}/z", "'q'"),
        ("train --data {folder}/own.csv --labels --out {folder}/z", "--labels"),
        ("train --config {folder}/none.toml", "none.toml"),
        ("train --config {folder}/own.csv", "own.csv"),
        ("evaluate", "RUN"),
        ("evaluate {folder}/none", "none"),
        ("evaluate {folder}", "config.toml"),
        ("evaluate --dataset moons --out {folder}/none", "moons"),
        ("sample {folder}/own", "-n"),
        ("sample {folder}/own -n 5", "-o"),
        ("sample {folder}/own -n 0 -o {folder}/s.csv", "-n"),
        ("sample {folder}/own -n 5 -o {folder}/s.xls", ".png"),
        ("sample {folder}/own -n 2.5 -o {folder}/s.csv", "-n 2.5: expected a whole number"),
        ("sample {folder}/own -n 5 --context {folder}/own.csv -o {folder}/s.csv", "no context"),
        ("sample {folder}/given -n 5 -o {folder}/s.csv", "--context"),
        ("sample {folder}/given -n 5 --context {folder}/bad.csv -o {folder}/s.csv", "'c'"),
        ("sample {folder}/own more -n 5 -o {folder}/s.csv", "more"),
        ("score {folder}/own {folder}/none.csv -o {folder}/s.csv", "none.csv"),
        ("score {folder}/own {folder}/none.npy -o {folder}/s.csv", "none.npy"),
        ("score {folder}/own {folder}/bad.csv -o {folder}/s.csv", "'c'"),
        ("score {folder}/own {folder}/wide.npy -o {folder}/s.csv", "wide.npy"),
        ("score {folder}/own {folder}/objects.npy -o {folder}/s.csv", "objects.npy"),
        ("score {folder}/own {folder}/nan.npy -o {folder}/s.csv", "row 2, column 3"),
        ("score {folder}/own {folder}/own.csv -o {folder}/s.xls", "s.xls"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(
    words: str,
    named: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MASKEDFLOW_DATA", str(folder))  # not where POWER may lie
    bad_table(folder)
    (folder / "half.toml").write_text("epochs = 2.5\n")
    np.save(folder / "wide.npy", np.zeros((2, 5)))
    np.save(folder / "nan.npy", np.array([[0.0, 0.0, 0.0], [0.0, 0.0, np.nan]]))
    np.save(folder / "objects.npy", np.array([["a", None, 1]], dtype=object))
    code, _, err = call(capsys, *words.format(folder=folder).split())
    assert code == 2
    assert err.startswith("maskedflow: ")
    assert err.count("\n") == 1
    assert named in err
    assert not (folder / "s.csv").exists()
    assert not (folder / "z").exists()


def test_a_damaged_run_is_a_users_error(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("config.toml", "checkpoints/best.safetensors"):
        copy = tmp_path / name.replace("/", "_")
        for file in ("config.toml", "checkpoints/best.safetensors"):
            content = (folder / "own" / file).read_bytes()
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            (copy / file).write_bytes(content[: len(content) // 2] if file == name else content)
        code, _, err = call(capsys, "sample", copy, "-n", 1, "-o", tmp_path / "s.csv")
        assert (code, err.count("\n")) == (2, 1)
        assert Path(name).name in err


def test_too_little_memory_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refused(*_: object, **__: object) -> None:
        torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr("maskedflow.training.fit", refused)
    code, _, err = call(capsys, "train", "--data", pair(tmp_path), *SMALL, "--out", tmp_path)
    assert code == 2
    assert "maskedflow: not enough memory" in err
    assert not (tmp_path / "t").exists()


def test_an_interrupt_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("maskedflow.training.fit", interrupted)
    code, _, err = call(capsys, "train", "--dataset", "moons", "--out", tmp_path)
    assert (code, err) == (130, "maskedflow: interrupted\n")

    def begun(*_: object, directory: Path, **__: object) -> None:
        (directory / "checkpoints").mkdir()
        (directory / "checkpoints" / "latest.safetensors").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("maskedflow.training.fit", begun)
    code, _, err = call(capsys, "train", "--dataset", "moons", "--out", tmp_path, "--epochs", 1)
    wanted = f"maskedflow train --resume --dataset moons --out {tmp_path}"
    assert (code, err) == (130, f"maskedflow: interrupted; to go on: {wanted}\n")
