"""Calls between the checker and the candidate: arguments travel, functions and iterators stay and are asked.

Both sides run the same code. A request is `["call", target, nodes, value]` or `["next", target]`. It is answered by
`["return", nodes, value, changes]`, `["raise", names, nodes, value, changes]` or `["refuse", why]`, and while it is,
requests of the other side are served, so that a function that was passed as an argument works. `changes` say what
became of the mutable containers of the request; they are made to the caller's own objects.
"""

from __future__ import annotations

import builtins
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

from .channel import Channel, Closed, Refused
from .codec import MUTABLE, Decoder, Encoder, Handles

MAX_CALLS_DEEP = 50
"""Calls inside each other's calls, back and forth."""
_MAX_NAME = 100
_MAX_BASES = 20
_mro = type.__dict__["__mro__"].__get__
_name = type.__dict__["__name__"].__get__
_args = BaseException.__dict__["args"].__get__


class Elsewhere:
    """An object of the other side that cannot travel. It is equal to nothing but itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<an object that stays in its process>"


class Peer:
    """One side; the `trusted` one is the checker's.

    `names` may hold further exception classes that both sides know. `lost` is told why there is no answer, wherever
    one was waited for: in a call, in a function that was returned, in the middle of an iteration.
    """

    def __init__(
        self, channel: Channel, *, trusted: bool, names: Mapping[str, Any], lost: Callable[[Exception], NoReturn]
    ) -> None:
        self.handles = Handles(self._proxy, trusted=trusted)
        self._channel = channel
        self._names = names
        self._lost = lost
        self._depth = 0

    def call(self, target: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the other side's object `target` and return what it returns.

        Raises:
            BaseException: what the call raised there, as a builtin class or a subclass of one.
        """
        try:
            encoder = Encoder(self.handles)
            value = encoder.encode((args, kwargs))
        except Refused as error:
            self._lost(error)
        return self.ask(["call", target, encoder.nodes, value], encoder.containers)

    def ask(self, request: Any, sent: Mapping[int, Any]) -> Any:
        """Send a request, of which `sent` are the mutable containers by their nodes, and return the answer.

        Raises:
            BaseException: what the other side raised.
        """
        try:
            self._channel.send(request)
            succeeded, value = self._await(sent)
        except (Closed, Refused) as error:
            self._lost(error)
        if not succeeded:
            raise value
        return value

    def serve(self) -> None:
        """Answer requests until the other side is gone.

        Raises:
            Closed: it is.
            Refused: it sent what is no request.
        """
        while True:
            self._serve(self._channel.receive())

    def answer(self, act: Callable[[], Any], arguments: Iterable[Any] = ()) -> None:
        """Send what `act` returns or raises, and what became of the request's containers."""
        before = [(k, v, _contents(v)) for k, v in enumerate(arguments) if type(v) in MUTABLE]
        head: list[Any] = ["return"]
        value: Any = None
        try:
            value = act()
        except BaseException as error:  # whatever a program raises is its answer
            BaseException.with_traceback(error, None)  # its frames may hold all the memory that there is
            head, value = ["raise", _bases(error)], _args(error)
        encoder = Encoder(self.handles, {id(container): k for k, container, _ in before})
        try:
            sent = encoder.encode(value)
            changes = [[k, encoder.contents(v)] for k, v, old in before if not _same(_contents(v), old)]
            self._channel.send([*head, encoder.nodes, sent, changes])
        except (Refused, RecursionError) as error:
            self._channel.send(["refuse", str(error)])

    def _await(self, sent: Mapping[int, Any]) -> tuple[bool, Any]:
        """Whether the request succeeded, and its value or exception."""
        while True:
            kind, *parts = _tagged(self._channel.receive())
            if kind in {"call", "next"} and self._depth < MAX_CALLS_DEEP:
                self._serve([kind, *parts])
            elif kind == "return" and len(parts) == 3:
                return True, self._take(sent, *parts)
            elif kind == "raise" and len(parts) == 4:
                return False, self._exception(parts[0], self._take(sent, *parts[1:]))
            elif kind == "refuse" and len(parts) == 1 and type(parts[0]) is str:
                raise Refused(parts[0])
            else:
                raise Refused("an answer of no known kind")

    def _take(self, sent: Mapping[int, Any], nodes: Any, value: Any, changes: Any) -> Any:
        decoder = Decoder(self.handles, nodes, sent)
        taken = decoder.decode(value)
        if type(changes) is not list:
            raise Refused("changes of no known kind")
        for change in changes:
            if type(change) is not list or len(change) != 2 or type(change[0]) is not int or change[0] not in sent:
                raise Refused("a change of what was never sent")
            _replace(sent[change[0]], decoder.decode(change[1]))
        return taken

    def _serve(self, request: Any) -> None:
        kind, *parts = _tagged(request)
        self._depth += 1
        if kind == "next" and len(parts) == 1:
            iterator = self.handles.own(parts[0])
            self.answer(lambda: tuple(itertools.islice(iterator, 1)))
        elif kind == "call" and len(parts) == 3:
            subject = self.handles.own(parts[0])
            decoder = Decoder(self.handles, parts[1])
            both = decoder.decode(parts[2])
            if type(both) is not tuple or len(both) != 2 or type(both[0]) is not tuple or type(both[1]) is not dict:
                raise Refused("a call without arguments")
            self.answer(lambda: subject(*both[0], **both[1]), decoder.made)
        else:
            raise Refused("a request of no known kind")
        self._depth -= 1

    def _proxy(self, kind: str, number: int) -> Any:
        if kind == "callable":
            return lambda *args, **kwargs: self.call(number, args, kwargs)
        return self._iterate(number) if kind == "iterator" else Elsewhere()

    def _iterate(self, number: int) -> Iterator[Any]:
        while True:
            items = self.ask(["next", number], {})
            if type(items) is not tuple or len(items) > 1:
                self._lost(Refused("a next item of no known kind"))
            if not items:
                return
            yield items[0]

    def _exception(self, names: Any, args: Any) -> BaseException:
        """An exception of the first class that is known here; of a subclass that bears its own name, if need be."""
        if type(names) is not list or not names or not all(type(name) is str for name in names):
            raise Refused("an exception of no known kind")
        found: type[BaseException] = Exception
        for name in names[:_MAX_BASES]:
            known = self._names.get(name, getattr(builtins, name[:_MAX_NAME], None))
            if isinstance(known, type) and issubclass(known, BaseException):
                found = known
                break
        if names[0] != found.__name__:
            found = type(names[0][:_MAX_NAME].replace("\0", ""), (found,), {})
        try:
            return found(*args) if type(args) is tuple else found()
        except Exception:  # some classes insist on arguments of their own
            return Exception(found.__name__)


def _tagged(message: Any) -> list[Any]:
    if type(message) is not list or not message or type(message[0]) is not str:
        raise Refused("a message of no known kind")
    return message


def _bases(error: BaseException) -> list[str]:
    return [_name(base)[:_MAX_NAME] for base in _mro(type(error))[:_MAX_BASES]]


def _contents(container: Any) -> list[Any]:
    if type(container) is dict:
        return [part for pair in container.items() for part in pair]
    return list(container)


def _same(now: list[Any], before: list[Any]) -> bool:
    """Whether a container holds the very same objects; what these hold is compared where they are containers."""
    return len(now) == len(before) and all(map(operator.is_, now, before))


def _replace(container: Any, contents: Any) -> None:
    if type(container) is not type(contents) and not issubclass(type(container), type(contents)):
        raise Refused("a container that became another kind")
    container.clear()
    container.extend(contents) if isinstance(container, list | bytearray) else container.update(contents)
