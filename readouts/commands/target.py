"""Locate and build the model that a command line names as `package.module:name`."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from torch import nn


class CannotRunError(Exception):
    """Raised when a command cannot be run; the text is one sentence for the user."""


def find(target: str) -> Any:
    """Import the object named `package.module:name`, also from the current folder.

    Raises:
        CannotRunError: there is no such object, or importing it fails.
    """
    module, _, path = target.partition(":")
    if not module or not path:
        raise CannotRunError(f"target: expected package.module:name, got {target!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # of the code of the module
        raise CannotRunError(f"cannot import {module}: {said(error)}") from error
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise CannotRunError(f"target: expected a name in {module}, got {path!r}") from error
    return found


def said(error: BaseException) -> str:
    """Write an exception in one line."""
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text.strip()}" if text else type(error).__name__


def build(target: str) -> Callable[..., Any]:
    """Return the model of a target: the object, or what a class or a function makes without arguments.

    A module made from a class is put into evaluation mode, because the caller could not set the mode.

    Raises:
        CannotRunError: it is not callable, needs arguments, raises, or makes nothing that can be called.
    """
    found = find(target)
    if not callable(found):
        raise CannotRunError(f"target: expected a model, class or function, got {type(found).__name__}")
    if isinstance(found, nn.Module) or not (inspect.isclass(found) or _needs_nothing(found)):
        return found
    if not _needs_nothing(found):
        signature = inspect.signature(found)
        raise CannotRunError(
            "target: expected a class without required arguments, or a function that makes the model, "
            f"got {target}{signature}"
        )
    try:
        model = found()
    except (Exception, SystemExit) as error:  # of the code of the class or function
        raise CannotRunError(f"{target}() raises {said(error)}") from error
    if not callable(model):
        raise CannotRunError(f"target: expected {target}() to make a model, got {type(model).__name__}")
    return model.eval() if inspect.isclass(found) and isinstance(model, nn.Module) else model


def _needs_nothing(found: Callable[..., Any]) -> bool:
    """Return whether it can be called without arguments; a function of `*args` is a model, not a factory."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except ValueError:  # a builtin
        return False
    variable = [each for each in parameters if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    if variable and not inspect.isclass(found):
        return False
    return all(each.default is not each.empty for each in parameters if each not in variable)
