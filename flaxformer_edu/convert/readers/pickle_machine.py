"""A pickle is a program for a small stack machine. This machine knows the few instructions that tensors need.

Python's own machine imports any name, calls anything and sets any attribute that a file asks for. Here a name stands
for what the caller's table says and nothing else, only the table's functions are called, state that a file wants to set
on an object is dropped, and keys are never tuples, whose hashing can take for ever. So a stranger's program may run.
"""

import io
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

MOST_INSTRUCTIONS = 500_000  # 20,000 tensors; none of them allocates more than some 200 bytes beside its argument
LONGEST_PROGRAM = 16 << 20  # bytes
MOST_ARGUMENTS = 8
KEYS = (str, int, float, type(None))


class Refused(Exception):
    """The program does something that a file of tensors has no need for."""


class Skipped:
    """Stands for an object that is no tensor, and of which nothing is kept."""

    __slots__ = ()


def run(program: bytes | memoryview, names: Mapping[str, Any], storage: Callable[[Any], Any]) -> Any:
    """The object that a pickle describes.

    `names` says what each `module.name` stands for, `storage` makes what a persistent identifier stands for.
    Raises `Refused` for other names and instructions, and anything at all where the program is malformed.
    """
    if len(program) > LONGEST_PROGRAM:
        raise Refused(f"its pickle is longer than {LONGEST_PROGRAM} bytes")
    machine = _Machine(names, storage)
    for count, (instruction, argument, _) in enumerate(pickletools.genops(io.BytesIO(program))):
        if count == MOST_INSTRUCTIONS:
            raise Refused(f"its pickle has more than {MOST_INSTRUCTIONS} instructions")
        machine.step(instruction.name, argument)
    return machine.stack.pop()


class _Machine:
    """The stack, the stacks set aside by marks, and the memo of values that are used again."""

    def __init__(self, names: Mapping[str, Any], storage: Callable[[Any], Any]):
        self.names = names
        self.storage = storage
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, instruction: str, argument: Any) -> None:
        """Follow one instruction, by its name in `pickletools`."""
        match instruction:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self.outer.append(self.stack)
                self.stack = []
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "SETITEM":
                self._set(self._pop(2))
            case "SETITEMS":
                self._set(self._pop_mark())
            case "APPEND":
                self._extend(self._pop(1))
            case "APPENDS":
                self._extend(self._pop_mark())
            case "BUILD":
                self._pop(1)  # the state that an object should get: dropped
            case _:
                value = self._value(instruction, argument)  # which may exchange the stack
                self.stack.append(value)

    def _value(self, instruction: str, argument: Any) -> Any:
        """What an instruction that makes one value makes."""
        match instruction:
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                return argument
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINBYTES" | "SHORT_BINBYTES":
                return argument
            case "NONE":
                return None
            case "NEWTRUE" | "NEWFALSE":
                return instruction == "NEWTRUE"
            case "EMPTY_DICT":
                return {}
            case "EMPTY_LIST":
                return []
            case "EMPTY_TUPLE":
                return ()
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                return tuple(self._pop(int(instruction[-1])))
            case "TUPLE":
                return tuple(self._pop_mark())
            case "BINGET" | "LONG_BINGET":
                return self.memo[argument]
            case "GLOBAL":
                return self._name(argument.replace(" ", "."))
            case "STACK_GLOBAL":
                return self._name(".".join(self._pop(2)))
            case "BINPERSID":
                return self.storage(self._pop(1)[0])
            case "REDUCE" | "NEWOBJ":
                return self._call(*self._pop(2))
        raise Refused(f"it uses the pickle instruction {instruction}, of which tensors have no need")

    def _pop(self, count: int) -> list[Any]:
        values = self.stack[-count:]
        if len(values) < count:
            raise Refused("its pickle takes values that it never made")
        del self.stack[-count:]
        return values

    def _pop_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.outer.pop()
        return values

    def _name(self, name: str) -> Any:
        if name not in self.names:
            raise Refused(f"it asks for {name!r:.100}, which is no part of a dictionary of tensors")
        return self.names[name]

    def _call(self, function: Any, arguments: Any) -> Any:
        """Only the table's values can be called: nothing else that this machine makes is callable."""
        if not callable(function) or not isinstance(arguments, tuple) or len(arguments) > MOST_ARGUMENTS:
            raise Refused("it calls something that is no function, or with more arguments than any has")
        return function(*arguments)

    def _set(self, entries: list[Any]) -> None:
        target, keys = self.stack[-1], entries[::2]
        if not isinstance(target, dict):
            raise Refused("it sets entries of something that is no dictionary")
        if not all(isinstance(key, KEYS) for key in keys):
            raise Refused("it has a dictionary with a key that is neither text nor a number")
        target.update(zip(keys, entries[1::2], strict=True))

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise Refused("it appends to something that is no list")
        self.stack[-1].extend(values)
