"""What is no usable model is refused once, before anything is written, with one line that says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from smp_features.errors import DeviceError, ModelError
from smp_features.extractors.base import open_device
from smp_features.extractors.caption import CaptionExtractor
from smp_features.extractors.clip import ClipTextExtractor
from smp_features.extractors.clip_names import find_clip
from smp_features.extractors.model_files import find_model
from smp_features.extractors.perplexity import PerplexityExtractor


def language(folder: Path | str, revision: str | None = None) -> PerplexityExtractor:
    return PerplexityExtractor(find_model("models.language.id", str(folder), revision))


def captioner(folder: Path | str, revision: str | None = None, prompt: str | None = None) -> CaptionExtractor:
    return CaptionExtractor(find_model("models.caption.id", str(folder), revision), prompt=prompt)


def clip_text(folder: Path | str) -> ClipTextExtractor:
    return ClipTextExtractor(find_clip("models.clip.id", str(folder), None, None)[0])


@pytest.fixture
def broken(gpt2_folder: Path, tmp_path: Path) -> Path:
    """A copy of the language model to break."""
    return shutil.copytree(gpt2_folder, tmp_path / gpt2_folder.name)


@pytest.mark.parametrize("build", [language, captioner, clip_text])
def test_a_folder_that_is_no_model_is_refused_in_one_line(
    build: Callable[[Path], PerplexityExtractor], tmp_path: Path
) -> None:
    (tmp_path / "holiday.txt").write_text("not a model")
    with pytest.raises(ModelError, match="is not a model") as refused:
        build(tmp_path).check()
    assert "\n" not in str(refused.value)


def test_a_path_that_is_no_folder_is_refused() -> None:
    with pytest.raises(ModelError, match="is not a folder"):
        language("./no/such/folder")


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".pkl", ".ckpt"])
def test_pickled_weights_are_refused_and_never_opened(broken: Path, suffix: str) -> None:
    (broken / "model.safetensors").unlink()
    (broken / f"pytorch_model{suffix}").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(ModelError, match="safetensors"):
        language(broken).check()
    with pytest.raises(ModelError, match="pickled"):
        language(broken).load("cpu")


def test_a_pickled_clip_checkpoint_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clip_folder, tmp_path / "pickled")
    (folder / "open_clip_model.safetensors").rename(folder / "open_clip_pytorch_model.bin")
    for attempt in (lambda: clip_text(folder).check(), lambda: clip_text(folder).load("cpu")):
        with pytest.raises(ModelError, match="pickled"):
            attempt()


def test_pickled_weights_beside_safetensors_are_ignored(broken: Path) -> None:
    (broken / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    language(broken).check()
    assert language(broken).load("cpu").prepare("dog")


def test_cut_weights_are_noticed_without_loading_them(broken: Path) -> None:
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ModelError, match="cut or damaged"):
        language(broken).check()


def test_a_missing_shard_is_noticed(broken: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="model-00002"):
        language(broken).check()


@pytest.mark.parametrize(
    ("build", "hidden"), [(language, {"n_embd": 32}), (captioner, {"vision_config": {"hidden_size": 32}})]
)
def test_weights_of_another_size_are_refused_before_and_when_they_are_loaded(
    build: Callable[[Path], PerplexityExtractor], hidden: dict, gpt2_folder: Path, blip_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(gpt2_folder if build is language else blip_folder, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    for name, value in hidden.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(config))
    for attempt in (build(folder).check, lambda: build(folder).load("cpu")):
        with pytest.raises(ModelError, match="could not be loaded"):
            attempt()


@pytest.mark.parametrize("build", [language, captioner])
def test_weights_of_another_model_are_refused_before_they_are_loaded(
    build: Callable[[Path], PerplexityExtractor], gpt2_folder: Path, blip_folder: Path, tmp_path: Path
) -> None:
    own, other = (gpt2_folder, blip_folder) if build is language else (blip_folder, gpt2_folder)
    folder = shutil.copytree(own, tmp_path / "mixed")
    shutil.copy(other / "model.safetensors", folder)
    with pytest.raises(ModelError, match="do not fit"):
        build(folder).check()


def test_shards_and_reduced_weights_pass_the_check(gpt2_folder: Path, tmp_path: Path) -> None:
    import torch
    from transformers import GPT2LMHeadModel

    folder = shutil.copytree(gpt2_folder, tmp_path / "shards")
    (folder / "model.safetensors").unlink()
    model = GPT2LMHeadModel.from_pretrained(gpt2_folder, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    language(folder).check()
    assert language(folder).load("cpu").prepare("dog")


def test_parameters_without_weights_are_an_error_and_not_random(broken: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(broken / "model.safetensors")
    name = next(key for key in weights if key.endswith("c_fc.weight"))
    del weights[name]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    for attempt in (language(broken).check, lambda: language(broken).load("cpu")):
        with pytest.raises(ModelError, match="do not fit"):
            attempt()


def test_the_wrong_architecture_is_refused(blip_folder: Path, gpt2_folder: Path, broken: Path) -> None:
    with pytest.raises(ModelError, match="not a causal language model"):
        language(blip_folder).check()
    with pytest.raises(ModelError, match="does not caption"):
        captioner(gpt2_folder).check()
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "architectures": ["GPT2ForSequenceClassification"]}))
    with pytest.raises(ModelError, match="not a causal language model"):
        language(broken).check()


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"]
)
@pytest.mark.parametrize("build", [language, captioner, clip_text])
def test_a_model_that_brings_code_is_refused(
    request: pytest.FixtureRequest, build: Callable[[Path], PerplexityExtractor], name: str, tmp_path: Path
) -> None:
    own = {language: "gpt2_folder", captioner: "blip_folder", clip_text: "clip_folder"}[build]
    folder = shutil.copytree(request.getfixturevalue(own), tmp_path / "model")
    content = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    for code in ({"auto_map": {"AutoModel": "evil.Model"}}, {"parts": [{"auto_map": {"AutoModel": "evil.Model"}}]}):
        (folder / name).write_text(json.dumps({**content, **code}))
        with pytest.raises(ModelError, match=f"never run: {name}"):
            build(folder).check()


def test_a_missing_tokenizer_is_noticed_and_not_made_up(
    gpt2_folder: Path, blip_folder: Path, clip_folder: Path, tmp_path: Path
) -> None:
    for build, folder in ((language, gpt2_folder), (captioner, blip_folder), (clip_text, clip_folder)):
        without = shutil.copytree(folder, tmp_path / folder.name)
        for path in without.glob("tokenizer*"):
            path.unlink()
        with pytest.raises(ModelError, match="has no tokenizer"):
            build(without).check()


def test_a_missing_second_tokenizer_is_noticed_and_the_first_not_taken_for_it(
    instructblip_folder: Path, tmp_path: Path
) -> None:
    without = shutil.copytree(instructblip_folder, tmp_path / "model")
    shutil.rmtree(without / "qformer_tokenizer")
    extractor = captioner(without, prompt="describe")
    for attempt in (extractor.check, lambda: extractor.load("cpu")):
        with pytest.raises(ModelError, match="has no tokenizer in qformer_tokenizer/"):
            attempt()


def test_the_second_tokenizer_is_among_what_the_fingerprint_pins(instructblip_folder: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(instructblip_folder, tmp_path / instructblip_folder.name)
    assert captioner(changed).fingerprint == captioner(instructblip_folder).fingerprint
    planned = captioner(changed, prompt="describe")
    tokenizer = changed / "qformer_tokenizer" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    assert captioner(changed).fingerprint != captioner(instructblip_folder).fingerprint
    with pytest.raises(ModelError, match="not the ones this run started with"):
        planned.load("cpu")


def test_files_that_change_after_planning_are_refused_by_the_worker(broken: Path) -> None:
    planned = language(broken)
    tokenizer = broken / "tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    for attempt in (planned.check, lambda: planned.load("cpu")):
        with pytest.raises(ModelError, match="not the ones this run started with"):
            attempt()


@pytest.mark.parametrize("revision", [None, "main", "v1.0", "abc123"])
def test_a_hub_model_without_a_pinned_commit_is_refused_before_the_hub_is_asked(
    monkeypatch: pytest.MonkeyPatch, revision: str | None
) -> None:
    def fetch(*arguments: object) -> Path:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("smp_features.extractors.model_files.fetch_from_hub", fetch)
    with pytest.raises(ModelError, match=r"models\.language\.revision"):
        language("gpt2", revision).check()
    with pytest.raises(ModelError, match=r"models\.clip\.revision"):
        ClipTextExtractor(find_clip("models.clip.id", "hf-hub:a/b", None, revision)[0]).check()


def test_a_pinned_hub_model_is_fetched_without_pickles_and_described_by_its_commit(
    monkeypatch: pytest.MonkeyPatch, gpt2_folder: Path
) -> None:
    asked = []

    def snapshot_download(repository: str, **options: object) -> str:
        asked.append((repository, options["revision"], options["allow_patterns"]))
        return str(gpt2_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    commit = "0123456789abcdef0123456789abcdef01234567"
    extractor = language("openai-community/gpt2", commit)
    extractor.check()
    assert extractor.description()["revision"] == commit
    assert extractor.load("cpu").prepare("dog")
    assert {(repository, revision) for repository, revision, _ in asked} == {("openai-community/gpt2", commit)}
    assert not any(pattern.endswith((".bin", ".pt", ".py", "*")) for _, _, patterns in asked for pattern in patterns)


@pytest.mark.parametrize("left", ["a shard", "a shard and no index", "all"])
def test_a_snapshot_that_lacks_shards_is_fetched_again(
    monkeypatch: pytest.MonkeyPatch, gpt2_folder: Path, tmp_path: Path, left: str
) -> None:
    from transformers import GPT2LMHeadModel

    repository = shutil.copytree(gpt2_folder, tmp_path / "hub")
    (repository / "model.safetensors").unlink()
    GPT2LMHeadModel.from_pretrained(gpt2_folder).save_pretrained(repository, max_shard_size="40KB")
    cache = shutil.copytree(repository, tmp_path / "cache")
    if left != "all":
        for shard in sorted(cache.glob("*.safetensors"))[1:]:
            shard.unlink()
    if left == "a shard and no index":
        (cache / "model.safetensors.index.json").unlink()
    fetched = []

    def snapshot_download(name: str, revision: str, local_files_only: bool = False, **patterns: list[str]) -> str:
        if not local_files_only:
            fetched.append(name)
            shutil.copytree(repository, cache, dirs_exist_ok=True)
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    extractor = language("openai-community/gpt2", "0" * 40)
    extractor.check()
    assert extractor.load("cpu").prepare("dog")
    assert len(fetched) == (0 if left == "all" else 1)


def test_shards_that_are_not_these_weights_are_not_asked_for(
    monkeypatch: pytest.MonkeyPatch, clip_folder: Path, tmp_path: Path
) -> None:
    cache = shutil.copytree(clip_folder, tmp_path / "cache")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (cache / "model.safetensors.index.json").write_text(json.dumps(index))

    def snapshot_download(name: str, local_files_only: bool = False, **options: object) -> str:
        assert local_files_only, "the hub was asked"
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    ClipTextExtractor(find_clip("models.clip.id", "hf-hub:a/b", None, "0" * 40)[0]).check()


def test_the_second_tokenizer_is_fetched_and_no_other_folder(
    monkeypatch: pytest.MonkeyPatch, instructblip_folder: Path, tmp_path: Path
) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import filter_repo_objects

    repository, cache = shutil.copytree(instructblip_folder, tmp_path / "hub"), tmp_path / "cache"
    shutil.copytree(repository / "qformer_tokenizer", repository / "onnx")

    def snapshot_download(name: str, revision: str, local_files_only: bool = False, **patterns: list[str]) -> str:
        if local_files_only and not cache.exists():
            raise LocalEntryNotFoundError("not cached")
        names = [str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file()]
        for name in () if local_files_only else filter_repo_objects(names, **patterns):
            (cache / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / name, cache / name)
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    extractor = captioner("Salesforce/instructblip", "0" * 40, "describe")
    extractor.check()
    assert {path.name for path in cache.iterdir() if path.is_dir()} == {"qformer_tokenizer"}
    shutil.rmtree(cache / "qformer_tokenizer")  # as an earlier fetch left it
    extractor.load("cpu")
    assert (cache / "qformer_tokenizer" / "tokenizer.json").exists()


def test_an_unreachable_hub_names_the_command_to_fetch_the_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def snapshot_download(repository: str, **options: object) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(ModelError, match="hf download openai-community/gpt2"):
        language("openai-community/gpt2", "0" * 40).check()


def test_a_bundled_model_has_its_short_name_in_the_description(
    monkeypatch: pytest.MonkeyPatch, gpt2_folder: Path
) -> None:
    monkeypatch.setattr("smp_features.extractors.zoo.ZOO", {"language": gpt2_folder})
    assert language("zoo:language").description()["model"] == "zoo:language"
    with pytest.raises(ModelError, match="language"):
        language("zoo:languag")


def test_a_gpu_that_is_not_there_is_a_device_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DeviceError, match="cuda:0"):
        open_device("cuda:0", None)
