"""Calls between the checker and the candidate: arguments travel, functions, iterators and objects stay and are asked.

Both sides run the same code. A request is `["call", target, nodes, value]`, `["ask", target, operation, nodes, value]`
or `["next", target, most]`. It is answered by `["return", nodes, value, changes]`, `["raise", names, nodes, value,
changes]` or `["refuse", why]`, and while it is, requests of the other side are served, so that a function that was
passed as an argument works. `changes` say what became of the mutable containers of the request; they are made to the
caller's own objects.
"""

from __future__ import annotations

import builtins
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

from .channel import Channel, Closed, Refused
from .codec import MUTABLE, Decoder, Encoder
from .elsewhere import MAX_PIECE, stand_in
from .handles import Handles

MAX_CALLS_DEEP = 50
"""Calls inside each other's calls, back and forth."""
_MAX_NAME = 100
_MAX_BASES = 20
OPERATIONS: dict[str, Callable[..., Any]] = {
    "iter": iter,
    "len": len,
    "item": operator.getitem,
    "bool": bool,
    "send": lambda generator, value: generator.send(value),
    "get": getattr,
    "str": str,
    "repr": repr,
}
"""What can be asked of an object beside calls and next items."""
_SHOWN_TO_PROGRAMS = {"iter", "len", "item", "bool", "send"}
"""Of the test's objects: through attributes a program would find all that the checker has."""
_CONSTANT = {bool, int, float, str, bytes, type(None)}
_LARGE = 1 << 10
_mro = type.__dict__["__mro__"].__get__
_name = type.__dict__["__name__"].__get__
_args = BaseException.__dict__["args"].__get__


class Peer:
    """A side of the channel; the `trusted` one is the checker's.

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
        self._asked = 0
        self._later: dict[int, BaseException] = {}
        """How an iteration goes on that came to its end, or failed, behind items that were asked for with it."""

    def call(self, target: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the other side's object `target` and return what it returns.

        Raises:
            BaseException: what the call raised there, as a builtin class or a subclass of one.
        """
        return self._ask_with(["call", target], (args, kwargs))

    def ask_of(self, target: int, what: str, *args: Any) -> Any:
        """What the operation `what` on the other side's object `target` gives.

        Raises:
            BaseException: as `call`.
        """
        return self._ask_with(["ask", target, what], args)

    def next_of(self, target: int, most: int) -> tuple[Any, ...]:
        """The next items of the other side's iterator `target`, from one to `most`; none at its end.

        Raises:
            BaseException: as `call`.
        """
        items = self.ask(["next", target, most], {})
        if type(items) is not tuple or len(items) > most:
            self._lost(Refused("next items of no known kind"))
        return items

    def _ask_with(self, request: list[Any], arguments: tuple[Any, ...]) -> Any:
        try:
            encoder = Encoder(self.handles)
            value = encoder.encode(arguments)
        except Refused as error:
            self._lost(error)
        return self.ask([*request, encoder.nodes, value], encoder.sent)

    def ask(self, request: Any, sent: Mapping[int, Any]) -> Any:
        """Send a request, of which `sent` are the values by their nodes, and return the answer.

        Raises:
            BaseException: what the other side raised.
        """
        self._asked += 1
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
        before, known = [], {}
        for k, v in enumerate(arguments):
            known[id(v)] = k
            if type(v) in MUTABLE:
                before.append((k, v, _contents(v)))
        head: list[Any] = ["return"]
        value: Any = None
        try:
            value = act()
        except BaseException as error:  # whatever a program raises is its answer
            BaseException.with_traceback(error, None)  # its frames may hold all the memory that there is
            head, value = ["raise", _bases(error)], _args(error)
        encoder = Encoder(self.handles, known)
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
            if kind in {"call", "ask", "next"} and self._depth < MAX_CALLS_DEEP:
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
        if kind == "next" and len(parts) == 2 and type(parts[1]) is int:
            number, most = parts
            iterator = self.handles.own(number)
            self.answer(lambda: self._advance(number, iterator, min(most, MAX_PIECE)))
        elif kind == "call" and len(parts) == 3:
            subject = self.handles.own(parts[0])
            decoder = Decoder(self.handles, parts[1])
            both = decoder.decode(parts[2])
            if type(both) is not tuple or len(both) != 2 or type(both[0]) is not tuple or type(both[1]) is not dict:
                raise Refused("a call without arguments")
            self.answer(lambda: subject(*both[0], **both[1]), decoder.made)
        elif kind == "ask" and len(parts) == 4 and self._may_be_asked(parts[1]):
            subject = self.handles.own(parts[0])
            decoder = Decoder(self.handles, parts[2])
            args = decoder.decode(parts[3])
            if type(args) is not tuple:
                raise Refused("an operation without arguments")
            self.answer(lambda: OPERATIONS[parts[1]](subject, *args), decoder.made)
        else:
            raise Refused("a request of no known kind")
        self._depth -= 1

    def _may_be_asked(self, what: Any) -> bool:
        return type(what) is str and what in (_SHOWN_TO_PROGRAMS if self.handles.trusted else OPERATIONS)

    def _advance(self, number: int, iterator: Iterator[Any], most: int) -> tuple[Any, ...]:
        """The next items, `most` or fewer: none is fetched ahead behind one that could be told from it later."""
        items: list[Any] = []
        asked = self._asked
        while len(items) < max(most, 1) and self._asked == asked:
            try:
                if number in self._later:
                    raise self._later.pop(number)
                items.append(next(iterator))
            except BaseException as error:
                if items:
                    self._later[number] = error
                elif not isinstance(error, StopIteration):
                    raise
                break
            if not _is_constant(items[-1]):
                break
        return tuple(items)

    def _proxy(self, kind: str, number: int) -> Any:
        return stand_in(self, kind, number, attributes=self.handles.trusted)

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


def _is_constant(item: Any) -> bool:
    """Whether an item is small and can neither change nor be asked, so that nobody knows when it was fetched."""
    if type(item) is tuple:
        return len(item) < _LARGE and all(type(part) in _CONSTANT and _is_constant(part) for part in item)
    if type(item) is str or type(item) is bytes:
        return len(item) < _LARGE
    return type(item) in _CONSTANT


def _contents(container: Any) -> list[Any]:
    if isinstance(container, dict):
        return [part for pair in container.items() for part in pair]
    return list(container)


def _same(now: list[Any], before: list[Any]) -> bool:
    """Whether a container holds the very same objects; what these hold is compared where they are containers."""
    return len(now) == len(before) and all(map(operator.is_, now, before))


def _replace(container: Any, contents: Any) -> None:
    kind = type(contents)
    if next((base for base in _mro(type(container)) if base in MUTABLE), None) is not kind:
        raise Refused("a container that became another kind")
    if kind is OrderedDict:
        OrderedDict.clear(container)
        OrderedDict.update(container, contents)
    elif isinstance(contents, dict):
        dict.clear(container)
        dict.update(container, contents)
    else:
        kind.clear(container)
        (kind.update if kind is set else kind.extend)(container, contents)
