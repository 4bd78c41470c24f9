"""The options of codecs on the command line, made of what each family declares; nothing here needs torch."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable
from typing import Any

from ..codecs.contract import Option, refusal
from ..codecs.registry import FAMILIES, options_of, options_of_family, owners
from ..signals import words
from .common import Usage


def declared() -> dict[str, tuple[Option, list[str]]]:
    """Every option that has a form on the command line: name -> (declaration, families that have it)."""
    found: dict[str, tuple[Option, list[str]]] = {}
    for family in FAMILIES.values():
        for option in options_of_family(family):
            if option.kind != "object" or option.load:
                found.setdefault(option.name, (option, []))[1].append(family.name)
    return found


def add_arguments(parser: argparse.ArgumentParser, names: Collection[str] | None = None) -> None:
    """One argument an option, of all or of these; those of one family alone form a group of its name."""
    own: dict[str, list[Option]] = {}
    for option, families in declared().values():
        if names is not None and option.name not in names:
            continue
        shared = len(families) > 1 or option.needs
        own.setdefault("" if shared else families[0], []).append(option)
    for name, options in own.items():
        group: Any = parser if not name else parser.add_argument_group(_title(name))
        goals = group.add_mutually_exclusive_group() if any(o.goal for o in options) else group
        for option in options:
            _add(goals if option.goal else group, option)


def _title(name: str) -> str:
    family = FAMILIES[name]
    what = words(family.modality)
    if name == "features":
        return f"{what} (-c features: .npy to .ltz, .safetensors and .npz to a .tar; lossless by default)"
    return f"{what} (-c {name})" if family.make else f"{what} ({name} codecs)"


def _add(group: Any, option: Option) -> None:
    flags = [option.flag] if option.flag else []
    more: dict[str, Any] = {"dest": f"option_{option.name}", "help": option.help}
    if option.kind == "bool":
        more |= {"action": argparse.BooleanOptionalAction if option.default else "store_const"}
        more |= {} if option.default else {"const": True}
    elif option.choices:
        more |= {"choices": option.choices}
    else:
        more |= {"type": _reader(option), "metavar": option.metavar or ("PATH" if option.load else "N")}
    if option.default is not None and option.kind not in ("bool", "object"):
        more["help"] += f" (default: {option.default})"
    group.add_argument(*flags, option.argument, **more)


def _reader(option: Option) -> Any:
    def read(text: str) -> Any:
        if option.kind == "object":
            return text
        value = option.of_text(text)
        low, high = option.low, option.high
        if not option.holds(value):
            ends = f"{low:g}..{high:g}" if low is not None and high is not None else f"the range {option.range}"
            raise argparse.ArgumentTypeError(f"{text} does not lie in {ends}")
        return value

    read.__name__ = option.kind  # argparse names it in its error
    return read


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The options that were said, by name; objects are made of their texts."""
    values = {}
    for name, (option, _) in declared().items():
        value = _value(args, name)
        if value is not None:
            values[name] = option.of_text(value) if option.kind == "object" else value
    return values


def _value(args: argparse.Namespace, name: str) -> Any:
    return getattr(args, f"option_{name}", None)


def _said(args: argparse.Namespace) -> list[str]:
    return [name for name in declared() if _value(args, name) is not None]


def check(args: argparse.Namespace, codec: str) -> None:
    """Raises Usage for an option that a codec does not have; before torch is loaded, where that can be known."""
    options = options_of(codec)
    if options is None:
        return
    strange = [n for n in _said(args) if n not in {o.name for o in options}]
    if "coding" in strange and _value(args, "coding") == "default":
        strange.remove("coding")
    if getattr(args, "profile", None):
        strange += [] if codec == "features" else ["profile"]
    if strange:
        raise Usage(_refusal(strange, codec, options))


def check_any(args: argparse.Namespace, codecs: Iterable[str]) -> None:
    """The same where one of several codecs will be taken."""
    known = [option for codec in codecs for option in options_of(codec) or ()]
    for name in [*_said(args), *(["profile"] if getattr(args, "profile", None) else [])]:
        if name not in {option.name for option in known} and (name, _value(args, "coding")) != ("coding", "default"):
            raise Usage(_refusal([name], "the codec taken by default", {o.name: o for o in known}.values()))


def _refusal(names: list[str], codec: str, options: Iterable[Option]) -> str:
    flag = f"--{names[0].replace('_', '-')}"
    if names[0] == "quality" and "tensor" not in _kinds(codec):
        from ..codecs.registry import list_codecs

        variable = [i.name for i in list_codecs() if not i.fixed_rate and set(_kinds(i.name)) & set(_kinds(codec))]
        hint = f", or choose {' or '.join(variable)} with --codec" if variable else ""
        return f"{codec} has one fixed rate: leave --quality out{hint}"
    families = ["features"] if names[0] == "profile" else declared()[names[0]][1]
    if len(families) == 1 and FAMILIES[families[0]].make:
        family = FAMILIES[families[0]]
        return f"{flag} is for {words(family.modality)}; add -c {family.name}"
    return refusal([flag], codec, options, owners(names[0]))


def _kinds(codec: str) -> list[str]:
    from ..codecs.registry import list_codecs

    return next((i.modality for i in list_codecs() if i.name == codec), "").split(", ")
