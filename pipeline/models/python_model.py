"""Back ends in the user's own Python: a factory "module:function", importable from the working folder."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any, cast

from pipeline.errors import UserError, nearest
from pipeline.models.protocols import Classifier, RegionEncoder


def python_classifier(
    classes: tuple[str, ...],
    device: str,
    *,
    factory: str,
    options: dict[str, Any] = {},  # noqa: B006
) -> Classifier:
    """A model under test of the user's own: `factory(classes, device, **options)`.

    Args:
        classes: the classes, in the order of the columns that `logits` must have.
        device: auto, cpu, cuda, cuda:1, mps; the factory may read "auto" as it likes.
        factory: "module:function". What it returns must have `logits(images)` and a string `fingerprint` that
            changes whenever an answer could change; see pipeline/models/protocols.py.
        options: keyword arguments for the factory.

    Raises:
        UserError: no such module or function, options it doesn't take, or an object that lacks something.
    """
    made = _call("model", factory, (classes, device), options)
    _check("model", factory, made, ("logits",), ("fingerprint",))
    return cast(Classifier, made)


def python_encoder(device: str, *, factory: str, options: dict[str, Any] = {}) -> RegionEncoder:  # noqa: B006
    """A region encoder of the user's own: `factory(device, **options)`.

    Args:
        device: auto, cpu, cuda, cuda:1, mps; the factory may read "auto" as it likes.
        factory: "module:function". What it returns must have `images(images)`, `regions(images, boxes)`, a
            string `fingerprint`, a bool `has_text`, and `texts(texts)` where that is true; see
            pipeline/models/protocols.py.
        options: keyword arguments for the factory.

    Raises:
        UserError: no such module or function, options it doesn't take, or an object that lacks something.
    """
    made = _call("embed", factory, (device,), options)
    texts = ("texts",) if getattr(made, "has_text", False) else ()
    _check("embed", factory, made, ("images", "regions", *texts), ("fingerprint", "has_text"))
    return cast(RegionEncoder, made)


def _call(seam: str, factory: str, given: tuple[Any, ...], options: dict[str, Any]) -> Any:
    function = _find(seam, factory)
    try:
        inspect.signature(function).bind(*given, **options)
    except TypeError as error:
        raise UserError(
            f"{seam}: {factory} can't be called with its {len(given)} arguments and the options: {error}."
        ) from None
    except ValueError:  # a factory without a signature, such as a built-in type
        pass
    return function(*given, **options)


def _find(seam: str, factory: str) -> Callable[..., Any]:
    module_name, colon, attribute = factory.partition(":")
    if not (colon and module_name and attribute.isidentifier()):
        raise UserError(f"{seam}: factory '{factory}' must be written as module:function.")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that it hides no installed package
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name + ".").startswith(error.name + "."):
            where = f"It is looked for in the working folder {os.getcwd()} and among the installed packages."
            raise UserError(f"{seam}: there is no module '{module_name}'. {where}") from None
        raise UserError(
            f"{seam}: the module '{module_name}' needs the package '{error.name}', which isn't installed."
        ) from error
    except Exception as error:  # the user's own code, whatever it raises
        raise UserError(
            f"{seam}: the module '{module_name}' fails at import: {type(error).__name__}: {error}"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise UserError(
            f"{seam}: the module '{module_name}' has no function '{attribute}'. {nearest(attribute, known)}"
        )
    return cast("Callable[..., Any]", function)


def _check(seam: str, factory: str, made: Any, methods: tuple[str, ...], attributes: tuple[str, ...]) -> None:
    lacking = [f"{name}()" for name in methods if not callable(getattr(made, name, None))]
    lacking += [name for name in attributes if not hasattr(made, name)]
    if lacking:
        raise UserError(
            f"{seam}: what {factory} returns ({type(made).__name__}) lacks {', '.join(lacking)}. "
            "See pipeline/models/protocols.py for what each must be."
        )
    if not (isinstance(made.fingerprint, str) and made.fingerprint):
        raise UserError(f"{seam}: the fingerprint of what {factory} returns must be a string that isn't empty.")
