"""Writes sources.manifest from the installed packages: `python -m posbench.data.manifest`.

Run it after the lock file has changed. It makes a new corpus, whose results are not comparable with the old one's.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from posbench import checksums
from posbench.data.sources import Entry, short_sha256
from posbench.data.splits import SPLITS, split_by_hash

# Packages in pure Python with prose in docstrings, whose files are the same for every Python, platform and accelerator.
# torch is not among them, because its builds differ.
PACKAGES = ("datasets", "matplotlib", "networkx", "pandas", "sympy", "transformers")

NOISE = re.compile(
    r"(^|/)(tests?|testing|benchmarks)/|/conftest\.py$"  # fixtures
    r"|(^|/)(_vendor|vendored|extern)/"  # other packages' code
    r"|(^|/)_antlr/|_pb2(_new)?\.py$|/dummy_\w*objects\.py$|/_?version\w*\.py$"  # written by programs
    r"|_data\.py$"  # tables
)
SIZES = (2_000, 4_000, 16_000, 64_000)  # bytes; a file below the first is mostly its licence
DIGITS = 0.1  # a file with a larger fraction of digits is a table of numbers
SHINGLE = 8  # words
SEEN = 0.2  # a file with a larger fraction of its shingles in larger files is a near-duplicate


def candidates() -> Iterator[tuple[Entry, str]]:
    """Yields the entries of suitable files, all in the train split, with their text."""
    for package in PACKAGES:
        distribution = metadata.distribution(package)
        requirement = f"{package}=={distribution.version}"
        for file in distribution.files or ():
            path = file.as_posix()
            if file.suffix != ".py" or file.parts[0] != package or NOISE.search(path):
                continue
            content = Path(str(file.locate())).read_bytes()
            text = content.decode("utf-8")
            if len(content) >= SIZES[0] and sum(map(str.isdigit, text)) < DIGITS * len(text):
                yield Entry("train", short_sha256(content), len(content), requirement, path), text


def shingles(text: str) -> set[int]:
    """Returns the hashes of all sequences of SHINGLE consecutive words."""
    words = re.findall(r"\w+", text)
    return {hash(tuple(words[i : i + SHINGLE])) for i in range(len(words) - SHINGLE + 1)}


def distinct(files: Iterable[tuple[Entry, str]]) -> list[Entry]:
    """Returns the files, largest first, without near-duplicates: most models of transformers are copies of others."""
    kept: list[Entry] = []
    seen: set[int] = set()
    for entry, text in sorted(files, key=lambda file: (-file[0].size, file[0].path)):
        own = shingles(text)
        if len(own & seen) <= SEEN * len(own):
            kept.append(entry)
            seen |= own
    return kept


def split(entries: Iterable[Entry]) -> list[Entry]:
    """Assigns splits within each class of size, so that the held-out splits have long documents too; sorts by path."""
    strata: dict[int, list[str]] = defaultdict(list)
    by_path = {entry.path: entry for entry in entries}
    for entry in by_path.values():
        strata[sum(entry.size >= size for size in SIZES)].append(entry.path)
    split_of: dict[str, str] = {}
    for paths in strata.values():
        split_of |= split_by_hash(paths, validation=0.05, test=0.1)
    return [by_path[path]._replace(split=split_of[path]) for path in sorted(by_path)]


def main() -> None:
    """Writes the manifest and prints the sizes of its splits."""
    entries = split(distinct(candidates()))
    header = "# split, first 16 digits of sha256, bytes, package, path: written by posbench.data.manifest"
    lines = [header, *(entry.line() for entry in entries), f"# {checksums.KEY}: {checksums.BLANK}", ""]
    Path(__file__).with_name("sources.manifest").write_bytes(checksums.seal("\n".join(lines).encode()))
    for name in SPLITS:
        sizes = [entry.size for entry in entries if entry.split == name]
        long = ", ".join(f"{sum(s >= size for s in sizes)} from {size} bytes" for size in SIZES[1:])
        print(f"{name}: {sum(sizes) / 1e6:.1f} MB in {len(sizes)} files, {long}")


if __name__ == "__main__":
    main()
