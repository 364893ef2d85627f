"""Answers that are iterated, read and called where they are: the test gets what it would get in one process."""

import pytest

from codellm_eval.judge.limits import Limits
from support.judging import hold_in_one_process, hold_in_the_sandbox, judged

CASES = {
    "chain": """
import itertools
def f(x): return itertools.chain(x[:1], x[1:])
# test
assert list(f([1, 2, 3])) == [1, 2, 3]
""",
    "permutations": """
from itertools import permutations
def f(x): return permutations(x)
# test
assert sorted(f([2, 1, 3])) == [(1, 2, 3), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1)]
""",
    "many permutations": """
from itertools import permutations
def f(x): return permutations(x)
# test
assert len(set(f(range(8)))) == 40320
""",
    "a slice of an endless count": """
import itertools
def f(): return itertools.islice(itertools.count(1), 3)
# test
assert list(f()) == [1, 2, 3]
""",
    "an endless count that the test slices": """
import itertools
def f(): return itertools.count(5)
# test
from itertools import islice
c = f()
assert list(islice(c, 200)) == list(range(5, 205)) and next(c) == 205
""",
    "accumulate": """
import itertools
def f(x): return itertools.accumulate(x)
# test
assert list(f([1, 1, 1])) == [1, 2, 3]
""",
    "a dict in reverse": """
def f(x): return reversed({3: 0, 2: 0, 1: 0})
# test
assert list(f(0)) == [1, 2, 3]
""",
    "an iterator over a deque": """
from collections import deque
def f(x): return iter(deque(x))
# test
assert list(f([1, 2])) == [1, 2]
""",
    "an iterator over a str that is not ASCII": """
def f(): return iter('aé')
# test
assert list(f()) == ['a', 'é']
""",
    "combinations, product, zip_longest, starmap, takewhile, cycle, pairwise": """
from itertools import *
def f():
    return [combinations('abc', 2), product((1, 2), repeat=2), zip_longest([1], [2, 3]), starmap(pow, [(2, 3)]),
            takewhile(bool, [1, 0, 1]), islice(cycle('ab'), 3), pairwise([1, 2, 3])]
# test
assert [list(each) for each in f()] == [
    [('a', 'b'), ('a', 'c'), ('b', 'c')], [(1, 1), (1, 2), (2, 1), (2, 2)], [(1, 2), (None, 3)], [8], [1],
    ['a', 'b', 'a'], [(1, 2), (2, 3)]]
""",
    "groups, which end where the next begins": """
from itertools import groupby
def f(x): return groupby(x)
# test
assert [(key, list(group)) for key, group in f('aab')] == [('a', ['a', 'a']), ('b', ['b'])]
kept = list(f('aab'))
assert [list(group) for _, group in kept] == [[], []]
""",
    "an iterator class": """
class Down:
    def __init__(self, n): self.n = n
    def __iter__(self): return self
    def __next__(self):
        if self.n == 0: raise StopIteration
        self.n -= 1
        return self.n
def f(n): return Down(n)
# test
it = f(3)
assert next(it) == 2 and it.n == 2 and list(it) == [1, 0] and iter(it) is it
""",
    "a class that can be iterated again and again, and has a length": """
class Bag:
    def __init__(self, *items): self.items = items
    def __iter__(self): return iter(self.items)
    def __len__(self): return len(self.items)
def f(): return Bag(1, 2)
# test
bag = f()
assert list(bag) == sorted(bag) == [1, 2] and len(bag) == 2 and 2 in bag and 3 not in bag and bag and not callable(bag)
""",
    "a class with items alone": """
class Squares:
    def __getitem__(self, i):
        if i > 3: raise IndexError
        return i * i
def f(): return Squares()
# test
assert list(f()) == [0, 1, 4, 9] and f()[2] == 4
""",
    "a class that says whether it is true": """
class Flag:
    def __init__(self, on): self.on = on
    def __bool__(self): return self.on
def f(on): return Flag(on)
# test
assert f(True) and not f(False)
""",
    "a mapping class as a dict": """
from collections.abc import Mapping
class Mine(Mapping):
    def __iter__(self): return iter('ab')
    def __len__(self): return 2
    def __getitem__(self, key): return key * 2
def f(): return Mine()
# test
assert dict(f()) == {'a': 'aa', 'b': 'bb'} and f().get('a') == 'aa' and sorted(f().items())[0] == ('a', 'aa')
""",
    "an iterator that is read in two places": """
def f(): return iter([1, 2, 3, 4])
# test
it = f()
assert list(zip(it, it)) == [(1, 2), (3, 4)]
""",
    "an iterator in the middle of which the program goes on": """
seen = []
def f(ask):
    if ask: return list(seen)
    return (seen.append(i) or i for i in range(1000))
# test
g = f(False)
for _ in range(3): next(g)
assert f(True) == [0, 1, 2]
""",
    "a long generator that fails at its end": """
def f():
    yield from range(500)
    raise ValueError('end')
# test
got = []
try:
    for item in f(): got.append(item)
except ValueError as e: assert str(e) == 'end' and got == list(range(500))
else: assert False
""",
    "an iterator that goes on after its end": """
class Odd:
    left = 70
    def __iter__(self): return self
    def __next__(self):
        self.left -= 1
        if self.left in (0, -2): raise StopIteration
        return self.left
def f(): return map(int, Odd())
# test
it = f()
assert len(list(it)) == 69 and list(it) == [-1]
""",
    "a function of the test in a map that is read in part": """
def f(k): return map(k, range(1000))
# test
calls = []
it = f(lambda x: calls.append(x) or x)
for _ in range(100): next(it)
assert calls == list(range(100))
""",
    "a generator that takes values": """
def f():
    total = 0
    while True: total += yield total
# test
g = f()
assert next(g) == 0 and g.send(5) == 5 and g.send(2) == 7
""",
    "a generator's result": """
def f():
    x = yield 1
    return x
# test
g = f(); next(g)
try: g.send(7)
except StopIteration as e: assert e.value == 7
else: assert False
""",
    "iterators inside of containers": """
def f(): return {'a': iter([1]), 'b': [x for x in (map(str, [1]),)]}
# test
d = f()
assert list(d['a']) == [1] and list(d['b'][0]) == ['1']
""",
    "an iterator of iterators": """
def f(n): return (iter(range(i)) for i in range(n))
# test
assert [list(each) for each in f(3)] == [[], [0], [0, 1]]
""",
    "an iterator that comes home": """
def f(it): return next(it, None) if it else iter([1, 2])
# test
it = f(None)
assert f(it) == 1 and next(it) == 2 and f(it) is None
""",
    "iterators and iterables of the test": """
import itertools
def f(xs): return list(itertools.islice(xs, 3))
# test
import itertools
class Bag:
    def __iter__(self): return iter((4, 5))
assert f(itertools.count(7)) == [7, 8, 9] and f(itertools.chain([1], [2])) == [1, 2] and f(Bag()) == [4, 5]
assert f(iter('aé')) == ['a', 'é'] and f(reversed([1, 2])) == [2, 1]
""",
    "a sum and a maximum of what is lazy": """
def f(x): return filter(None, x)
# test
assert sum(f([1, 0, 2])) == 3 and max(f([1, 0, 2])) == 2 and set(f([1, 0])) == {1} and tuple(f([0])) == ()
""",
    "a dataclass": """
from dataclasses import dataclass
@dataclass
class Point:
    x: int
    y: list
def f(): return Point(1, [2])
# test
p = f()
assert p.x == 1 and p.y == [2] and p != (1, [2]) and repr(p) == 'Point(x=1, y=[2])'
""",
    "objects that hold one another, and their methods": """
class Node:
    def __init__(self, value, next=None): self.value, self.next = value, next
    def length(self): return 1 + (self.next.length() if self.next else 0)
def f(values):
    node = None
    for value in reversed(values): node = Node(value, node)
    return node
# test
node = f([1, 2])
assert node.value == 1 and node.next.value == 2 and node.next.next is None and node.length() == 2
assert hasattr(node, 'next') and not hasattr(node, 'last') and getattr(node, 'last', 3) == 3
""",
    "a class as answer": """
class Stack:
    def __init__(self): self.items = []
    def push(self, x): self.items.append(x)
def f(): return Stack
# test
stack = f()(); stack.push(3)
assert stack.items == [3]
""",
    "text of an object": """
class Money:
    def __str__(self): return '3 €'
def f(): return Money()
# test
assert str(f()) == '3 €' and f'{f()}' == '3 €'
""",
}  # fmt: skip
EQUAL = """
class Equal:
    __eq__ = __contains__ = __lt__ = __gt__ = lambda self, other: True
    __hash__ = lambda self: 0
    __len__ = __index__ = __int__ = __float__ = lambda self: 1
    __getattr__ = __getitem__ = __call__ = __sub__ = __rsub__ = __add__ = __abs__ = lambda self, *args: self
    __str__ = __repr__ = lambda self: 'equal'
    __iter__ = lambda self: iter([self])
    __next__ = lambda self: self
def f(*args): return Equal()
"""


@pytest.mark.parametrize("case", CASES)
def test_in_one_process_the_same_holds(case):
    hold_in_one_process(CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_what_is_lazy_behaves_as_in_one_process(case, sandbox):
    hold_in_the_sandbox(CASES[case], sandbox)


@pytest.mark.parametrize(
    "test",
    ["f() == 3", "3 == f()", "3 in f()", "f() in [3]", "f().x == 3", "f()[0] == 3", "f().x()[1].y == 3",
     "list(f()) == [3]", "next(f()) == 3", "str(f()) == '3'", "f()() == 3", "abs(f() - 3) < 1", "f() < 4", "f() == f()",
     "f() in {3: 0}", "sorted([3, f()])[0] == 3", "max(f(), 2) == 3", "next(iter(f())) == 3", "f().__eq__(3) is True"],
)  # fmt: skip
def test_an_object_never_judges_what_it_is_compared_with(test, sandbox):
    verdict = judged(EQUAL, f"assert {test}", sandbox)
    assert verdict.outcome == "failed", verdict


def test_an_endless_iteration_has_an_end(sandbox):
    program, limits = "import itertools\ndef f(): return itertools.count()", Limits(cpu_seconds=1, wall_seconds=4)
    assert judged(program, "assert -1 in f()", sandbox, limits=limits).outcome == "timeout"


def test_a_program_reads_no_attribute_of_an_object_of_the_test(sandbox):
    program = "def f(x):\n    try: return x.secret\n    except AttributeError: return 'nothing'"
    test = "class Mine: secret = 7; __iter__ = lambda self: iter([1])\nassert f(Mine()) == 'nothing'"
    assert judged(program, test, sandbox).passed
