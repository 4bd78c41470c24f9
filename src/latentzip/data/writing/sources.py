"""What `pack` reads: folders, WebDataset tars, Hugging Face data sets on disk; all as lists of samples.

A source is listed once, before anything is coded, in an order that depends on names alone; a worker then reads any
sample by itself.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from ...entropy import schema
from ...entropy.errors import FormatError, InputError, UnsupportedError
from ...entropy.opening import open_regular, read_file
from ...warn import converted
from ..archive import MAX_TEXT
from ..modality import MODALITIES
from ..remote import is_remote
from ..shards import MAX_KEY, fits

_MAX_FILE = 1 << 32  # bytes of a file
_MAX_LABEL = 1 << 20  # bytes of a member that says a label
_MAX_LABELS = 1 << 30  # bytes of a file of labels

Label = str | int | None


@dataclass(frozen=True)
class Sample:
    """One signal of a source.

    Attributes:
        key: its name in the pack: a relative path without extension, unique, plain.
        name: as users know it; relative to the source.
        num_bytes: as stored in the source.
        file, offset: where its bytes begin; of a row of a table ``offset`` is the row.
        label: None where the source says nothing.
        extra: values of the columns that were asked for.
    """

    key: str
    name: str
    num_bytes: int
    file: str = ""
    offset: int = 0
    label: Label = None
    extra: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """Which files of a source are samples.

    Attributes:
        modality: what they hold.
        only: the end of their names, which is no part of their keys; empty for all that are not in ``others``.
        others: ends of names of what belongs to a sample as a stream of its own.
        columns: that are asked for beside labels.
    """

    modality: str = "image"
    only: str = ""
    others: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def takes(self, name: str) -> bool:
        """Whether a file is a sample, by its name."""
        name = name.lower()
        if self.only:
            return name.endswith(self.only)
        if Path(name).suffix not in MODALITIES[self.modality].suffixes:
            return False
        return not any(name.endswith(end) for end in self.others)

    def key(self, name: str) -> str:
        """A sample's key from its file name."""
        return key_of(f"{name[: -len(self.only)]}.x" if self.only else name)

    @property
    def noun(self) -> str:
        """What is looked for, in words."""
        return MODALITIES[self.modality].noun


PLAIN = Wanted()


class Source(Protocol):
    """Where samples come from; small and picklable."""

    @property
    def root(self) -> str:
        """Path of the source, for messages and relative labels."""
        ...

    @property
    def kind(self) -> str:
        """``"folder"``, ``"webdataset"`` or ``"hf"``."""
        ...

    @property
    def wanted(self) -> Wanted:
        """Which of its files are samples."""
        ...

    def samples(self) -> list[Sample]:
        """All samples, in an order that is the same everywhere; keys are not unique yet."""
        ...

    def read(self, sample: Sample) -> bytes:
        """The encoded file of one sample."""
        ...


# --- folders -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FolderSource:
    """Files below a folder, sorted by their relative paths; hidden ones are left out."""

    root: str
    kind: str = "folder"
    wanted: Wanted = PLAIN

    def samples(self) -> list[Sample]:
        found: list[tuple[str, int]] = []
        seen: set[tuple[int, int]] = set()  # links may lead round in circles
        for folder, folders, files in os.walk(self.root, followlinks=True):
            facts = os.stat(folder)
            if (facts.st_dev, facts.st_ino) in seen:
                folders[:] = []
                continue
            seen.add((facts.st_dev, facts.st_ino))
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            for file in files:
                if not file.startswith(".") and self.wanted.takes(file):
                    path = Path(folder, file)
                    found.append((path.relative_to(self.root).as_posix(), _size(path)))
        if self.wanted.columns and not self.wanted.only:
            raise InputError(
                f"a folder has no columns ({', '.join(self.wanted.columns)}): name a CSV or JSON file of them as labels"
            )
        return [Sample(self.wanted.key(name), name, size, name) for name, size in sorted(found)]

    def read(self, sample: Sample) -> bytes:
        return read_file(Path(self.root, sample.file), _MAX_FILE)


def _size(path: Path) -> int:
    """Bytes of a file; 0 of one that cannot be read, which is told when its turn comes."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


# --- WebDataset --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TarSource:
    """WebDataset shards: members that share all up to the first dot of the file name belong to one sample.

    The label is what ``.cls`` (a number or a word) or ``.json`` (``label`` or ``class``) say; columns are fields of
    ``.json``, and ``text`` is a ``.txt``.
    """

    files: tuple[str, ...]
    root: str = ""
    kind: str = "webdataset"
    wanted: Wanted = PLAIN

    def samples(self) -> list[Sample]:
        return [sample for file in self.files for sample in self._scan(file)]

    def _scan(self, file: str) -> list[Sample]:
        found: list[Sample] = []
        stems: list[str] = []  # of what was found; members of one need not lie side by side
        labels: dict[str, Label] = {}
        fields: dict[str, dict[str, Any]] = {}
        before, wanted = None, self.wanted
        try:
            with tarfile.open(file, "r:") as tar:
                for member in tar:
                    if not member.isfile():
                        continue
                    name = _plain(member.name)
                    stem, _, extension = _split_member(name)
                    if wanted.takes(name):
                        if stem == before and stems[-1:] == [stem]:
                            raise InputError(
                                f"{file}: {stem} has two {wanted.noun}, {found[-1].name} and {member.name}"
                            )
                        if member.issparse():
                            raise InputError(f"{file}: {member.name} is stored sparsely; make the tar file anew")
                        stems.append(stem)
                        origin = f"{Path(file).name}/{name}"
                        found.append(Sample(wanted.key(name), origin, member.size, file, member.offset_data))
                    elif extension in ("cls", "json") or (extension == "txt" and "text" in wanted.columns):
                        label, row = _said(extension, tar, member, f"{file}: {member.name}", wanted.columns)
                        if label is not None:
                            labels[stem] = label
                        if row:
                            fields.setdefault(stem, {}).update(row)
                    before = stem
        except (tarfile.TarError, EOFError, OverflowError) as error:
            raise InputError(f"{file}: not a plain tar file, or a damaged one: {error}") from error
        for i, stem in enumerate(stems):
            row = fields.get(stem, {})
            missing = [name for name in wanted.columns if name not in row]
            if missing and not wanted.only:
                raise InputError(f"{file}: {found[i].name} has no column {missing[0]!r}; it has {sorted(row)}")
            found[i] = replace(found[i], label=labels.get(stem), extra=tuple(row.get(n) for n in wanted.columns))
        known = set(stems)
        lone = [stem for stem in labels if stem not in known]
        if lone and not wanted.only:
            noun = MODALITIES[wanted.modality].one
            converted(f"{file}: {len(lone)} labels have no {noun}, such as that of {lone[0]}")
        return found

    def read(self, sample: Sample) -> bytes:
        with os.fdopen(open_regular(sample.file), "rb") as file:
            file.seek(sample.offset)
            return file.read(sample.num_bytes)


def _plain(name: str) -> str:
    """A member's name without the ``./`` that ``tar cf x.tar .`` puts in front."""
    return "/".join(part for part in name.split("/") if part != ".")


def _split_member(name: str) -> tuple[str, str, str]:
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    return folder + slash + stem, dot, extension.lower()


def _said(
    extension: str, tar: tarfile.TarFile, member: tarfile.TarInfo, where: str, columns: tuple[str, ...]
) -> tuple[Label, dict[str, Any]]:
    """The label and the columns that a member holds."""
    if member.size > _MAX_LABEL:
        raise InputError(f"{where}: a label of {member.size} bytes; at most {_MAX_LABEL} are read")
    stream = tar.extractfile(member)
    data = stream.read() if stream is not None else b""
    try:
        if extension == "cls":
            return _number_or_text(data.decode().strip()), {}
        if extension == "txt":
            return None, {"text": data.decode().strip()}
        row = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: unreadable label: {error}") from None
    if not isinstance(row, dict):
        return None, {}
    value = row.get("label", row.get("class"))
    plain = isinstance(value, (str, int)) and not isinstance(value, bool)
    label = _checked_label(value, where) if plain else None
    return label, {name: checked_cell(row[name], where) for name in columns if name in row}


# --- Hugging Face ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HubSource:
    """A data set saved by ``datasets.Dataset.save_to_disk``: its column of pictures or sound, its label column if it
    has one, and columns that are asked for."""

    root: str
    kind: str = "hf"
    wanted: Wanted = PLAIN

    def _table(self) -> tuple[Any, str, str | None]:
        return _hub_table(self.root, _state_of(self.root), self.wanted.modality, self.wanted.columns)

    def samples(self) -> list[Sample]:
        table, column, label = self._table()
        pc: Any = import_module("pyarrow.compute")

        cells = table.data.column(column)  # sizes and names without reading the pictures
        sizes = pc.binary_length(pc.struct_field(cells, "bytes")).to_pylist()
        paths = pc.struct_field(cells, "path").to_pylist()
        labels = [None] * len(table) if label is None else table.data.column(label).to_pylist()
        names = None if label is None else getattr(table.features[label], "names", None)
        extras = zip(*(table.data.column(name).to_pylist() for name in self.wanted.columns))
        extra_of = list(extras) if self.wanted.columns else [()] * len(table)
        samples = []
        for row, (size, path, found) in enumerate(zip(sizes, paths, labels)):
            if names is not None and found is not None:
                if found >= len(names):
                    raise InputError(f"{self.root}: row {row} has label {found} of {len(names)} classes")
                found = names[found] if found >= 0 else None
            elif isinstance(found, bool) or not isinstance(found, (int, str, type(None))):
                raise InputError(f"{self.root}: row {row} has label {found!r:.60}; words or integers are needed")
            name = f"row {row}" + (f" ({PurePosixPath(path).name})" if path else "")
            size = (_size(Path(path)) if path else 0) if size is None else size
            extra = tuple(checked_cell(value, f"{self.root}: row {row}") for value in extra_of[row])
            samples.append(Sample(f"{row:08d}", name, size, "", row, found, extra))
        return samples

    def read(self, sample: Sample) -> bytes:
        table, column, _ = self._table()
        value = table[sample.offset][column]
        if value and value["bytes"] is not None:
            return value["bytes"]
        if not value or not value["path"]:
            raise InputError(f"{sample.name}: there is no {MODALITIES[self.wanted.modality].one} in this row")
        path = Path(self.root, value["path"]).resolve()
        if not path.is_relative_to(Path(self.root).resolve()):
            one, noun = MODALITIES[self.wanted.modality].one, self.wanted.noun
            raise InputError(f"{sample.name}: its {one} lies outside of the data set; save that with its {noun}")
        return read_file(path, _MAX_FILE)


def _state_of(root: str) -> tuple[tuple[str, int, int, int], ...]:
    """What changes when a data set is saved anew under its path."""
    files = sorted(Path(root).glob("*.*"))
    facts = ((p.name, p.stat()) for p in files)
    return tuple((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in facts)


@lru_cache(maxsize=2)
def _hub_table(root: str, state: Any, modality: str, columns: tuple[str, ...]) -> tuple[Any, str, str | None]:
    """(table with encoded files, the column of these, its label column or None)."""
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UnsupportedError(
            f"{root} is a Hugging Face data set; reading it needs: pip install latentzip[hf]"
        ) from error
    table: Any = datasets.load_from_disk(root)
    if isinstance(table, datasets.DatasetDict):
        raise InputError(
            f"{root} holds several splits ({', '.join(map(str, table))}); pack one of them: {root}/{next(iter(table))}"
        )
    kind = MODALITIES[modality]
    if not kind.feature:
        raise InputError(f"{root}: {kind.noun} are packed from folders of {', '.join(sorted(kind.suffixes))}")
    feature = getattr(datasets, kind.feature)
    files = [name for name, found in table.features.items() if isinstance(found, feature)]
    if len(files) != 1:
        raise InputError(f"{root}: one {kind.one} column is needed, found {len(files)}: {', '.join(table.features)}")
    missing = [name for name in columns if name not in table.features]
    if missing:
        raise InputError(f"{root} has no column {missing[0]!r}; it has {', '.join(table.features)}")
    labels = [name for name, found in table.features.items() if isinstance(found, datasets.ClassLabel)]
    label = "label" if "label" in table.features else labels[0] if labels else None
    keep = list(dict.fromkeys([files[0], *([label] if label else []), *columns]))
    table = table.select_columns(keep).cast_column(files[0], feature(decode=False))
    return table.flatten_indices(), files[0], label


# --- opening -----------------------------------------------------------------------------------------------------


def open_source(src: str | os.PathLike[str], wanted: Wanted = PLAIN) -> Source:
    """The source that a path or brace pattern stands for.

    Raises:
        InputError: nothing there that can be packed.
        FileNotFoundError: no such file or folder.
    """
    text = os.fspath(src)
    if is_remote(text):
        raise InputError(f"{text}: sources are read from this machine; copy or mount it first")
    if not os.path.exists(text) and "{" in text:
        files = tuple(expand_braces(text))
        missing = [f for f in files if not os.path.isfile(f)]
        if missing:
            raise InputError(f"{text}: {len(missing)} of {len(files)} shards are missing, such as {missing[0]}")
        return TarSource(files, text, wanted=wanted)
    path = Path(text)
    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", text)
    if path.is_file():
        if path.suffix.lower() != ".tar":
            raise InputError(f"{text}: a folder, a tar file or a Hugging Face data set on disk is needed")
        return TarSource((text,), text, wanted=wanted)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return HubSource(text, wanted=wanted)
    tars = tuple(str(p) for p in sorted(path.glob("*.tar")))
    return TarSource(tars, text, wanted=wanted) if tars else FolderSource(text, wanted=wanted)


def expand_braces(pattern: str) -> Iterator[str]:
    """``a-{000..002}.tar`` -> a-000.tar, a-001.tar, a-002.tar; ``{x,y}`` lists alternatives."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if not match:
        yield pattern
        return
    body = match[1]
    steps = re.fullmatch(r"(\d+)\.\.(\d+)", body)
    if steps:
        first, last, width = int(steps[1]), int(steps[2]), len(steps[1])
        if last - first > 1_000_000:
            raise InputError(f"{pattern}: {body} stands for more than a million shards")
        choices: Iterable[str] = (f"{n:0{width}d}" for n in range(first, last + 1))
    else:
        choices = body.split(",")
    for choice in choices:
        yield from expand_braces(pattern[: match.start()] + choice + pattern[match.end() :])


# --- keys --------------------------------------------------------------------------------------------------------


def key_of(name: str) -> str:
    """A sample's key from its file name: no extension, no further dots (readers of tars split at the first one).

    Names that a tar header cannot hold, and such as lead out of a folder, are replaced by a hash.
    """
    folder, slash, base = name.rpartition("/")
    stem = base.rpartition(".")[0] or base
    key = folder + slash + stem.replace(".", "_")
    parts = key.split("/")
    plain = key.isprintable() and not any(part in ("", ".", "..") for part in parts) and "\\" not in key
    if plain and len(key.encode()) <= MAX_KEY and len(parts[-1].encode()) < 80 and fits(key):
        return key
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def with_unique_keys(samples: Sequence[Sample]) -> list[Sample]:
    """Samples with keys made unique, by the extension if that helps (photo.jpg, photo.png), else by a number."""
    taken: set[str] = set()
    out = []
    for sample in samples:
        key, number = sample.key, 2
        if key in taken:
            key = f"{sample.key}_{Path(sample.name).suffix[1:].lower()}"
        while key in taken:
            key, number = f"{sample.key}_{number}", number + 1
        taken.add(key)
        out.append(sample if key == sample.key else replace(sample, key=key))
    return out


# --- labels ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labelled:
    """Samples whose labels are numbers (or all None), and the names of the classes where they have names."""

    samples: list[Sample]
    classes: list[str] | None = field(default=None)


def labelled(source: Source, labels: str | None, columns: Sequence[str] = ()) -> Labelled:
    """All samples of a source with their labels.

    Args:
        labels: ``"folders"`` takes the first folder of the relative path; a ``.csv`` or ``.json`` file names them;
            None takes what the source itself says.
        columns: of the file of labels that every sample carries.

    Raises:
        InputError: nothing to pack, or a sample without label where others have one; the text names it.
    """
    samples = with_unique_keys(source.samples())
    if not samples:
        raise InputError(f"nothing to pack: no {source.wanted.noun} in {source.root}")
    if labels == "folders":
        samples = [replace(s, label=_class_folder(s, source.root)) for s in samples]
    elif labels is not None:
        table = read_labels(labels, columns)
        found = [_look_up(table, s, source, labels) for s in samples]
        samples = [replace(s, label=row[0], extra=row[1:] or s.extra) for s, row in zip(samples, found)]
    without = [s for s in samples if s.label is None]
    if len(without) == len(samples):
        return Labelled(samples)
    if without:
        raise InputError(f"{without[0].name} has no label while others have one ({len(without)} such samples)")
    if all(isinstance(s.label, int) for s in samples):
        return Labelled(samples)
    classes = sorted({str(s.label) for s in samples})
    numbers = {name: i for i, name in enumerate(classes)}
    return Labelled([replace(s, label=numbers[str(s.label)]) for s in samples], classes)


def _class_folder(sample: Sample, root: str) -> str:
    folder, slash, _ = sample.file.partition("/")
    if not slash or os.path.isabs(sample.file):
        raise InputError(f"{sample.name} lies in no class folder of {root}; name its label in a CSV or JSON file")
    return folder


_PATH_NAMES = ("path", "file", "file_name", "filename", "image", "key", "name")
_LABEL_NAMES = ("label", "class", "category", "target")


def read_labels(path: str, columns: Sequence[str] = ()) -> Mapping[str, tuple[Any, ...]]:
    """Path -> (label, values of columns) from a CSV file with a header line, or JSON ({path: label}, or a list of such
    rows). Without a column of labels, which is right where columns are asked for, the label is None.

    Raises:
        InputError: unreadable, or the columns cannot be told apart.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".csv", ".json"):
        raise InputError(f"labels are 'folders', a .csv or a .json file, not {path}")
    data = read_file(path, _MAX_LABELS)
    try:
        text = data.decode("utf-8-sig")
        if suffix == ".csv":
            rows: Any = list(csv.DictReader(io.StringIO(text)))
        else:
            rows = schema.parse(text, path, most=_MAX_LABELS)
    except (ValueError, csv.Error, FormatError) as error:
        raise InputError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    if isinstance(rows, dict):
        if columns:
            raise InputError(f"{path}: an object of labels has no columns; write a list of objects")
        return {str(k): (_checked_label(v, path),) for k, v in rows.items()}
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: a header line and rows, a JSON object or a list of objects is needed")
    names = {str(n).lower(): n for n in rows[0]}
    source = next((names[n] for n in _PATH_NAMES if n in names), None)
    target = next((names[n] for n in _LABEL_NAMES if n in names), None)
    if source is None or (target is None and not columns):
        raise InputError(
            f"{path}: needs a column of paths ({', '.join(_PATH_NAMES)}) and one of labels "
            f"({', '.join(_LABEL_NAMES)}); it has {', '.join(map(str, rows[0]))}"
        )
    missing = [name for name in columns if any(name not in row for row in rows)]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}; it has {', '.join(map(str, rows[0]))}")
    values: list[Label] = [None] * len(rows)
    if target is not None:
        values = [_checked_label(row.get(target), path) for row in rows]
    if suffix == ".csv" and target is not None and all(isinstance(_number_or_text(str(v)), int) for v in values):
        values = [int(str(v)) for v in values]
    cells = list(zip(*(_cells([row[name] for row in rows], path, suffix == ".csv") for name in columns)))
    cells = cells if columns else [()] * len(rows)
    return dict(zip((str(row.get(source)) for row in rows), ((v, *more) for v, more in zip(values, cells))))


def _cells(values: list[Any], path: str, texts: bool) -> list[Any]:
    """The values of a column; numbers of a CSV file, where all texts are numbers."""
    values = [checked_cell(value, path) for value in values]
    for number in (int, float) if texts else ():
        with suppress(ValueError):
            return [number(value) for value in values]
    return values


def checked_cell(value: Any, where: str) -> Any:
    """A value of a column: a number, a truth or a text; raises InputError: anything else."""
    if isinstance(value, (bool, int, float)) and abs(value) < 1 << 63:
        return value
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        return value
    raise InputError(f"{where}: {value!r:.60} does not go into a column; numbers and texts up to {MAX_TEXT} do")


def _checked_label(value: Any, path: str) -> Label:
    if value is None or isinstance(value, (bool, float)) or not isinstance(value, (str, int)):
        raise InputError(f"{path}: {value!r:.60} is no label; words or integers are")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise InputError(f"{path}: a label of {len(value)} characters; {MAX_TEXT} are the most")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise InputError(f"{path}: {value!r:.60} is no label: it is beyond 64 bits")
    return value


def _number_or_text(text: str) -> str | int:
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else text


def _look_up(table: Mapping[str, tuple[Any, ...]], sample: Sample, source: Source, labels: str) -> tuple[Any, ...]:
    base = os.path.basename(source.root.rstrip("/"))
    for name in (sample.name, sample.key, f"{base}/{sample.name}", sample.name.rpartition("/")[2]):
        if name in table:
            return table[name]
    raise InputError(f"{labels} has no label for {sample.name}")
