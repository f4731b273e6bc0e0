"""Where a model's files are, what pins them, and what is refused before any of them is loaded."""

from __future__ import annotations

import fnmatch
import functools
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from smp_features.errors import ModelError
from smp_features.extractors.model_digests import DIGESTED, QFORMER_TOKENIZER, Sizes, digest_folder, sizes_of
from smp_features.extractors.model_places import NOWHERE, ModelPlaces

PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")

INDEX = "model.safetensors.index.json"
"""Names the shards of weights that are several files."""

VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model", "bpe.model")

CONFIGURATIONS = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
"""Where transformers looks for `auto_map`, which names code of the model's own."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHARD = re.compile(r"-\d+-of-\d+\.safetensors")


@dataclass(frozen=True)
class ModelFiles:
    """A model's files, on disk or on the hub, and what pins them.

    Naming a model touches nothing; `pinned` finds the files, on the driver, and workers are given what it returns.

    Attributes:
        setting: The configuration key that names the model, such as `models.caption.id`, for messages.
        id: What was configured; for a bundled model its `zoo:` name.
        revision: The pinned commit of a hub model; not looked at for a folder.
        tag: What names a hub model's weights in place of a commit; whoever sets it records the weights' digest.
        weights: Which safetensors files are this model's, as a glob.
        hub: Whether it was found to be a hub model.
        folder: The absolute path of a local model, where it was found; null for the hub.
        digest: SHA-256 over a folder's files as first seen, on the driver; null for the hub.
        sizes: Their names and sizes then.
        places: Where else workers may find a folder with that digest.
    """

    setting: str
    id: str
    revision: str | None = None
    tag: str | None = None
    weights: str = "*.safetensors"
    hub: bool = False
    folder: str | None = None
    digest: str | None = None
    sizes: Sizes = ()
    places: ModelPlaces = NOWHERE

    @classmethod
    def named(cls, model: str, settings: Any) -> ModelFiles:
        """Return the files that an entry of the section `models` names by `id`, `revision` and, where it has one, tag.

        Args:
            model: The entry's name.
            settings: Its settings.
        """
        tag = getattr(settings, "pretrained", None)
        return cls(f"models.{model}.id", settings.id, revision=settings.revision, tag=tag)

    @property
    def section(self) -> str:
        """The configuration's section that names the model, such as `models.caption`, for messages."""
        return self.setting.rpartition(".")[0]

    @property
    def is_pinned(self) -> bool:
        """Whether it is known where the files are, and what they must be."""
        return self.hub or self.folder is not None

    def pinned(self, places: ModelPlaces = NOWHERE) -> ModelFiles:
        """Return the same model with its files found, those of a folder digested.

        Args:
            places: Where workers may find them.

        Raises:
            ModelError: A path that is no folder, or an unknown bundled model.
        """
        found = self if self.is_pinned else find_model(self.setting, self.id, self.revision)
        return found if places == NOWHERE else replace(found, places=places)

    def labels(self) -> dict[str, str | None]:
        """Return what the model is called here, which decides nothing: the hub or zoo name, or the folder's own."""
        if self.folder is not None and not self.id.startswith("zoo:"):
            return {"model": Path(self.folder).name}
        return {"model": self.id} if self.tag is None else {"model": self.id, "tag": self.tag}

    def identity(self) -> dict[str, str | None]:
        """Return what decides the output: the digest of a folder's files, or the commit of a hub model's.

        Of a hub model with a tag it is the digest of its weights, which only who knows the tag can give.
        """
        pinned = self.pinned()
        if pinned.folder is not None:
            return {"weights": pinned.digest}
        return {} if pinned.tag is not None else {"revision": pinned.revision}

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return a JSON object among the model's files, null when there is no such file.

        Raises:
            ModelError: The file is not a JSON object, or the hub cannot be reached.
        """
        path = self.locate(weights=False) / name
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as failure:
            raise ModelError(f"{name} of model '{self.id}' ({self.setting}) is not readable JSON.") from failure
        if not isinstance(content, dict):
            raise ModelError(f"{name} of model '{self.id}' ({self.setting}) is not a JSON object.")
        return content

    def require_json(self, name: str) -> dict[str, Any]:
        """Return a JSON object without which the files are no model.

        Raises:
            ModelError: There is no such file, or it is not a JSON object.
        """
        content = self.read_json(name)
        if content is None:
            raise ModelError(
                f"'{self.id}' ({self.setting}) is not a model: it has no {name}.",
                f"Give a folder with {name}, *.safetensors and the tokenizer's files.",
            )
        return content

    def locate(self, weights: bool = True) -> Path:
        """Return the folder that holds the files: one with the digest, or the hub's cache at the pinned commit.

        Args:
            weights: Also fetch the weights from the hub, not only configuration and tokenizer.

        Raises:
            ModelError: No place has these files, or the hub does not have them or cannot be reached.
        """
        if not self.is_pinned:
            return self.pinned().locate(weights)
        if self.folder is not None:
            return self._find()
        if self.tag is None and (self.revision is None or not _COMMIT.fullmatch(self.revision)):
            raise ModelError(
                f"'{self.id}' ({self.setting}) is no folder here, and as a hub model it is not pinned to a commit.",
                f"Set {self.section}.revision to the 40-digit commit, or give a local folder.",
            )
        return fetch_from_hub(self.id, self.revision, self.setting, self.weights if weights else None)

    def require_tokenizer(self, inside: str = ".") -> str:
        """Return the folder to load the tokenizer from, after checking that it has one and that it is only data.

        Args:
            inside: A folder inside the model's, for a second tokenizer.

        Raises:
            ModelError: No vocabulary (transformers would make up an empty one, and take the first tokenizer for a
                second), or a configuration that names code.
        """
        folder = self.locate(weights=False) / inside
        if not folder.is_dir() or not any(path.name.endswith(VOCABULARIES) for path in folder.iterdir()):
            where = "" if inside == "." else f" in {inside}/"
            raise ModelError(
                f"'{self.id}' ({self.setting}) has no tokenizer{where}.",
                f"Its folder must also hold the tokenizer's files{where}, such as tokenizer.json.",
            )
        self.refuse_code(inside)
        return str(folder)

    def refuse_code(self, inside: str = ".") -> None:
        """Check that no configuration names code of the model's own.

        Args:
            inside: A folder inside the model's.

        Raises:
            ModelError: One does, or is not a JSON object.
        """
        for name in CONFIGURATIONS:
            if _has_key(self.read_json(f"{inside}/{name}"), "auto_map"):
                raise ModelError(
                    f"'{self.id}' ({self.setting}) brings its own code, which is never run: {name} has an auto_map.",
                    "Use a model that transformers or open_clip implements itself.",
                )

    def weight_files(self) -> list[Path]:
        """Return the safetensors files, sorted by name, after reading each one's header.

        Raises:
            ModelError: None there, only pickled ones there, or one is cut or damaged.
        """
        folder = self.locate()
        found = sorted(folder.glob(self.weights))
        if not found:
            pickled = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PICKLED)
            if pickled:
                raise ModelError(
                    f"'{self.id}' ({self.setting}) holds only pickled weights ({pickled[0]}), which can run code when "
                    "loaded and are refused.",
                    "Convert them to safetensors on a machine you can lose, and give the converted folder.",
                )
            raise ModelError(f"'{self.id}' ({self.setting}) is not a model: it has no *.safetensors weights.")
        absent = _absent_shards(folder, self.weights)
        if absent:
            raise ModelError(
                f"'{self.id}' ({self.setting}) lacks the weights file {absent[0]} that its index names.",
                "Fetch the model again.",
            )
        for path in found:
            _check_header(path, self)
        return found

    def verify(self) -> None:
        """Check that a folder still, or on this machine also, has the files that the fingerprint stands for.

        Raises:
            ModelError: No place has them.
        """
        if self.folder is not None:
            self._find()

    def _find(self) -> Path:
        assert self.folder is not None and self.digest is not None
        found = self.places.find(Path(self.folder), self.digest, self.sizes)
        if found is not None:
            return found
        if Path(self.folder).is_dir():
            raise ModelError(
                f"The files of '{self.id}' ({self.setting}) are not the ones this run started with.",
                "Put the same files on every machine, and do not change them during a run.",
            )
        raise ModelError(
            f"This machine has no folder with the files of '{self.id}' ({self.setting}), which the driver has in "
            f"{self.folder}.",
            "Name a folder that every machine can read in extraction.model_folders, or set extraction.ship_models: "
            "true, by which the model is copied through the root.",
        )


def find_model(setting: str, model_id: str, revision: str | None) -> ModelFiles:
    """Tell a bundled model, a local folder and a hub name apart, and pin the folder's files by their digest.

    Args:
        setting: The configuration key, for messages.
        model_id: `zoo:…`, a folder, or a hub name.
        revision: The configured commit of a hub name; not looked at for folders, which the digest pins.

    Raises:
        ModelError: A path that is no folder, or an unknown bundled model.
    """
    if model_id.startswith("zoo:"):
        folder = _find_in_zoo(setting, model_id)
    else:
        folder = Path(model_id).expanduser()
        if not folder.is_dir():
            looks_like_path = folder.is_absolute() or model_id.startswith((".", "~")) or model_id.count("/") > 1
            if looks_like_path or folder.is_file():
                raise ModelError(
                    f"'{model_id}' ({setting}) is not a folder.", "Give a model's folder, or a hub name and revision."
                )
            return ModelFiles(setting, model_id, revision=revision, hub=True)
    folder = folder.resolve()
    return ModelFiles(setting, model_id, folder=str(folder), digest=digest_folder(folder), sizes=sizes_of(folder))


def _find_in_zoo(setting: str, model_id: str) -> Path:
    from smp_features.errors import nearest
    from smp_features.extractors.zoo import ZOO

    name = model_id.removeprefix("zoo:")
    if name not in ZOO:
        raise ModelError(f"There is no bundled model '{model_id}' ({setting}).", nearest(name, ZOO))
    return Path(ZOO[name])


def _check_header(path: Path, files: ModelFiles) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as opened:
            empty = not list(opened.keys())
    except (SafetensorError, OSError) as failure:
        raise ModelError(
            f"The weights {path.name} of '{files.id}' ({files.setting}) are cut or damaged.", "Fetch them again."
        ) from failure
    if empty:
        raise ModelError(f"The weights {path.name} of '{files.id}' ({files.setting}) hold no tensors.")


def fetch_from_hub(repository: str, revision: str | None, setting: str, weights: str | None) -> Path:
    """Return the cached snapshot of a hub repository, fetching safe files that are missing.

    Those are the repository's top-level files, and InstructBLIP's second tokenizer.

    Args:
        repository: `organisation/name`.
        revision: A commit; null for the newest, where something else pins the weights.
        setting: The configuration key, for messages.
        weights: A glob for the safetensors to have as well; null for configuration and tokenizer only.

    Raises:
        ModelError: The repository, commit or hub is out of reach.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    small = [f"*{suffix}" for suffix in DIGESTED if suffix != ".safetensors"]
    top = {"allow_patterns": [*small, *([weights] if weights else [])], "ignore_patterns": ["*/*"]}
    second = {"allow_patterns": [f"{QFORMER_TOKENIZER}/{pattern}" for pattern in small]}
    fetch = functools.partial(snapshot_download, repository, revision=revision)
    try:
        try:
            folder = Path(fetch(local_files_only=True, **top))
            complete = weights is None or _has_weights(folder, weights)  # a snapshot of some files counts as cached
        except LocalEntryNotFoundError:
            complete = False
        if not complete:
            folder = Path(fetch(**top))
        if _is_instructblip(folder) and not (folder / QFORMER_TOKENIZER).is_dir():
            fetch(**second)
        return folder
    except (HFValidationError, HfHubHTTPError, OSError, ValueError) as failure:
        at = f" --revision {revision}" if revision else ""
        raise ModelError(
            f"'{repository}' ({setting}) could not be fetched from the hub ({type(failure).__name__}).",
            f"Fetch it where the hub can be reached (hf download {repository}{at} --local-dir DIR) and set {setting} "
            "to that folder.",
        ) from failure


def _has_weights(folder: Path, weights: str) -> bool:
    found = [path.name for path in folder.glob(weights)]
    if (folder / INDEX).is_file():
        return bool(found) and not _absent_shards(folder, weights)
    return any(not _SHARD.search(name) for name in found)  # shards may have come before their index


def _absent_shards(folder: Path, weights: str) -> list[str]:
    """Return the files that the index names, that are weights by the glob, and that are not in the folder itself."""
    try:
        named = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # there is none, or loading says what is wrong with it
    there = {path.name for path in folder.glob(weights)}
    return sorted(name for name in map(str, named) if fnmatch.fnmatch(name, weights) and name not in there)


def _has_key(content: Any, key: str) -> bool:
    if isinstance(content, dict):
        return key in content or any(_has_key(value, key) for value in content.values())
    return isinstance(content, list) and any(_has_key(value, key) for value in content)


def _is_instructblip(folder: Path) -> bool:
    try:
        return "instructblip" in (folder / "config.json").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False  # whoever reads the configuration says what is wrong with it
