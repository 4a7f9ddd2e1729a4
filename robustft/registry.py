"""Finds what can be chosen: a file in a package is an entry, its signature gives the parameters, its docstring the help."""

import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from .types import Range, UserError, quoted

PACKAGES = ("datasets", "backbones", "regularizers", "task_losses", "tuning", "averages", "metrics", "drift")


@dataclass(frozen=True)
class Param:
    """One parameter as a person sees it: pages draw a control from it, the CLI checks ``--set`` against it.

    Attributes:
        name: Keyword in the code and on the command line.
        kind: ``int``, ``float``, ``bool`` or ``str``.
        default: Value if nothing is said; None means "chosen from the data" (the help says how).
        low: Smallest allowed number.
        high: Largest allowed number.
        choices: Allowed words.
        help: One line of meaning.
        source: Whose default it is.
    """

    name: str
    kind: type
    default: Any
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    help: str = ""
    is_optional: bool = False
    source: str = ""

    @property
    def allowed(self) -> str:
        """What a value may be, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.kind is bool:
            return "true or false"
        words = {int: "a whole number", float: "a number"}.get(self.kind, "text")
        bounds = f" from {self.low:g} to {self.high:g}" if self.low is not None and self.high is not None else ""
        return words + bounds + (", or none" if self.is_optional else "")


@dataclass(frozen=True)
class Entry:
    """A discovered file: its function, what can be set, and what its module declares."""

    name: str
    function: Callable[..., Any]
    module: ModuleType
    params: tuple[Param, ...]
    summary: str
    source: str

    def declares(self, attribute: str, default: Any = None) -> Any:
        """Returns a constant or hook of the entry's module, such as ``NEEDS``, ``LAWS`` or ``calibrate``."""
        return getattr(self.module, attribute, default)


@cache
def discover(package: str) -> Mapping[str, Entry]:
    """Imports every public module of ``robustft.<package>``; each holds a function of the module's own name.

    Raises:
        UserError: If the package is not one that holds entries.
    """
    if package not in PACKAGES:
        raise UserError(f"there is no registry {package!r}; choose one of {', '.join(PACKAGES)}.")
    root = import_module(f"{__package__}.{package}")
    names = sorted(info.name for info in pkgutil.iter_modules(root.__path__) if not info.name.startswith("_"))
    return {name: _read_entry(import_module(f"{root.__name__}.{name}"), name) for name in names}


def find(package: str, name: str) -> Entry:
    """Returns one entry.

    Raises:
        UserError: If there is none of that name; lists those there are.
    """
    entries = discover(package)
    if name not in entries:
        hint = f", or add robustft/{package}/{name}.py" if name.isidentifier() and len(name) < 40 else ""
        raise UserError(f"{package} has no {quoted(name)}; choose one of {', '.join(entries)}{hint}.")
    return entries[name]


def _read_entry(module: ModuleType, name: str) -> Entry:
    function = getattr(module, name)
    doc = inspect.getdoc(function) or ""
    params = tuple(p for p in read_params(function) if inspect.signature(function).parameters[p.name].kind is inspect.Parameter.KEYWORD_ONLY)
    return Entry(name, function, module, params, doc.split("\n\n")[0].replace("\n", " "), _section(doc, "Source"))


def read_params(callable_: Callable[..., Any]) -> tuple[Param, ...]:
    """Reads the parameters of a function or dataclass whose annotations say type and `Range`."""
    hints = get_type_hints(callable_, include_extras=True)
    help_lines = _described(inspect.getdoc(callable_) or "")
    signature = inspect.signature(callable_)
    return tuple(
        _read_param(name, hints[name], p.default, help_lines.get(name, ""))
        for name, p in signature.parameters.items()
        if p.default is not inspect.Parameter.empty and p.default is not MISSING
    )


def _read_param(name: str, hint: Any, default: Any, help_line: str) -> Param:
    bounds: tuple[float, float] | None = None
    if get_origin(hint) is Annotated:
        hint, *marks = get_args(hint)
        bounds = next(((m.low, m.high) for m in marks if isinstance(m, Range)), None)
    optional = type(None) in get_args(hint)
    if optional:
        hint = next(a for a in get_args(hint) if a is not type(None))
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    kind = str if choices else hint
    low, high = bounds or (None, None)
    return Param(name, kind, default, low, high, choices, help_line, optional)


def _section(doc: str, title: str) -> str:
    """Returns the text of a Google-style section."""
    match = re.search(rf"^{title}:\n((?:[ ]{{4}}.*\n?|\n)+)", doc, re.MULTILINE)
    return " ".join(match.group(1).split()) if match else ""


def _described(doc: str) -> dict[str, str]:
    """Returns what ``Args`` or ``Attributes`` say of each name."""
    lines: dict[str, str] = {}
    for title in ("Args", "Attributes"):
        match = re.search(rf"^{title}:\n((?:[ ]{{4}}.*\n?|\n)+)", doc, re.MULTILINE)
        for name, text in re.findall(r"^ {4}(\w+): ((?:.*\n?)(?: {8}.*\n?)*)", match.group(1) if match else "", re.MULTILINE):
            lines[name] = " ".join(text.split())
    return lines


def parse_value(param: Param, value: Any) -> Any:
    """Turns a typed or written value into the parameter's type.

    Raises:
        UserError: If it has the wrong type or lies outside what is allowed; names value, rule and parameter.

    Example:
        >>> steps = Param("steps", int, 100, 1, 1000)
        >>> parse_value(steps, "250")
        250
        >>> parse_value(steps, "many")
        Traceback (most recent call last):
        ...
        robustft.types.UserError: steps = 'many' is not allowed; give a whole number from 1 to 1000.
    """
    if param.is_optional and (value is None or value == "none"):
        return None
    refusal = UserError(f"{param.name} = {quoted(value)} is not allowed; give {param.allowed}.")
    if isinstance(value, bool) != (param.kind is bool) and not isinstance(value, str):
        raise refusal
    try:
        parsed = _convert(param, value)
    except (TypeError, ValueError, OverflowError):
        raise refusal from None
    if param.choices and parsed not in param.choices:
        raise refusal
    # Written so that NaN, which compares false with everything, is refused too.
    if param.low is not None and param.high is not None and not param.low <= parsed <= param.high:
        raise refusal
    return parsed


def _convert(param: Param, value: Any) -> Any:
    if param.kind is bool:
        if isinstance(value, bool):
            return value
        return {"true": True, "false": False}[value] if value in ("true", "false") else int("not a bool")
    if param.kind is int and isinstance(value, float):
        return int(value) if value.is_integer() else int("not whole")
    if param.kind is str and not isinstance(value, str):
        raise TypeError
    return param.kind(value)
