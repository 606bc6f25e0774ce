"""Fingerprints of functions, which tell whether their code has changed."""

import functools
import hashlib
import inspect
import sys
import types


def fingerprint(function):
    """A short text that changes with the code of a function, or of one of its module that it calls.

    Comments and line numbers do not count. It begins with Python's version: others compile the same
    code differently.
    """
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    digest = hashlib.sha256("\n".join(descriptions(function)).encode()).hexdigest()
    return f"{python_version()}-{digest[:16]}"


def python_version():
    return "{}.{}".format(*sys.version_info)


def is_other(code, known):
    """Whether a fingerprint is none of those known, as far as this version of Python can tell."""
    comparable = [one for one in known if one.startswith(f"{python_version()}-")]
    return bool(comparable) and code not in comparable


def descriptions(function):
    """The code, as text, of a function and of those of its module that it calls."""
    found, waiting = {}, [function]
    while waiting:
        one = waiting.pop()
        if one in found or not isinstance(one, types.FunctionType):
            continue
        found[one] = description(one.__code__, one.__doc__)
        if one.__module__ == function.__module__:
            called = [one.__globals__.get(name) for name in names_in(one.__code__)]
            waiting += [x for x in called if getattr(x, "__module__", "") == function.__module__]
    return sorted(found.values())


def description(code, doc=None):
    """What a code object does, as text: instructions, names and constants, without `doc`."""
    constants = [
        description(item)
        if isinstance(item, types.CodeType)
        else repr(sorted(item, key=repr) if isinstance(item, frozenset) else item)
        for item in code.co_consts
        if item is None or item != doc
    ]
    return repr((code.co_code, code.co_names, constants))


def names_in(code):
    """The global names in a code object and in those within it, such as lambdas."""
    inner = [item for item in code.co_consts if isinstance(item, types.CodeType)]
    return [*code.co_names, *(name for item in inner for name in names_in(item))]
