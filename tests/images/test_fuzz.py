"""Damaged pictures end with a status, and the command that damages twenty thousand would tell where one does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import fuzz_images
from smp_features.images import ImageRefused, inspect_image

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pytest resets the filter of the decoders' warnings


def test_damaged_files_of_every_format_end_with_a_verdict() -> None:
    for name, data in fuzz_images.damaged(400, seed=2):
        facts = fuzz_images.judge(data)
        assert facts.status not in fuzz_images.FAILURES, f"{name}: {facts.error}"


def test_the_sound_files_are_pictures() -> None:
    sound = fuzz_images.corpus()
    assert {inspect_image(data).status for data in sound.values()} == {"ok"}
    assert len({name.split()[0] for name in sound}) >= 10


def test_a_seed_makes_the_same_files_again() -> None:
    assert list(fuzz_images.damaged(20, 3)) == list(fuzz_images.damaged(20, 3))
    assert list(fuzz_images.damaged(20, 3)) != list(fuzz_images.damaged(20, 4))


def test_an_exception_and_a_disagreement_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = next(iter(fuzz_images.corpus().values()))

    def fail(data: bytes) -> None:
        raise ValueError("a bug")

    def refuse(data: bytes) -> None:
        raise ImageRefused("truncated", "cut")

    monkeypatch.setattr(fuzz_images, "decode_rgb", refuse)
    assert fuzz_images.judge(sound).status == fuzz_images.DISAGREEMENT
    monkeypatch.setattr(fuzz_images, "decode_rgb", fail)
    assert fuzz_images.judge(sound).status == fuzz_images.EXCEPTION
    monkeypatch.setattr(fuzz_images, "inspect_image", fail)
    assert fuzz_images.judge(sound).status == fuzz_images.EXCEPTION


def test_the_command_keeps_what_fails_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fuzz_images.main(["--files", "20", "--seed", "5", "--keep", str(tmp_path / "kept")]) == 0
    assert "20 files (seed 5)" in capsys.readouterr().out
    assert not (tmp_path / "kept").exists()
    monkeypatch.setattr(fuzz_images, "damaged", lambda files, seed: iter([("5-0 PNG cut", b"crash")]))
    monkeypatch.setattr(fuzz_images, "PROGRAM", "stuck_decoder")
    assert fuzz_images.main(["--files", "1", "--keep", str(tmp_path / "kept")]) == 1
    assert "FAILED 5-0 PNG cut: worker_lost" in capsys.readouterr().out
    assert (tmp_path / "kept" / "5-0_PNG_cut").read_bytes() == b"crash"
