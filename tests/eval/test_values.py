"""What crosses between test and program: as in one process, wherever that can be."""

import pytest

from support.judging import hold_in_one_process, hold_in_the_sandbox, judged

CASES = {
    "a changed list": """
def f(x): x.append(x.pop(0)); x.sort(reverse=True)
# test
x = [1, 3, 2]; f(x)
assert x == [3, 2, 1]
""",
    "changes inside of containers, and the containers themselves": """
def f(x): x['a'].add(2); x['b'] = x.pop('a')
# test
x = {'a': {1}}; s = x['a']; f(x)
assert x == {'b': {1, 2}} and x['b'] is s
""",
    "a changed bytearray": """
def f(x): x += b'!'
# test
x = bytearray(b'a'); f(x)
assert x == b'a!'
""",
    "a change before an exception": """
def f(x): x.clear(); raise KeyError
# test
x = [1]
try: f(x)
except KeyError: assert x == []
else: assert False
""",
    "an argument that comes back is itself": """
def f(x): return x
# test
x = [1]
assert f(x) is x
""",
    "one object twice in an answer is one": """
def f(x): return [x, x]
# test
a, b = f([1])
assert a is b
""",
    "one object twice in an argument is one": """
def f(rows): rows[0][0] = 1; return rows
# test
r = [0]; rows = [r, r]
assert f(rows) == [[1], [1]] and r == [1]
""",
    "a generator": """
def f(n):
    for i in range(n): yield i
# test
g = f(3)
assert next(g) == 0 and list(g) == [1, 2]
""",
    "an iterator without end": """
import itertools
def f(): return map(int, itertools.count())
# test
assert [x for _, x in zip('abc', f())] == [0, 1, 2]
""",
    "a generator that raises": """
def f():
    yield 1
    raise ValueError('end')
# test
g = f(); next(g)
try: next(g)
except ValueError as e: assert str(e) == 'end'
else: assert False
""",
    "a generator as argument": """
def f(g): return sum(g)
# test
assert f(x * x for x in (1, 2, 3)) == 14
""",
    "a function as argument": """
def f(k, xs): return sorted(xs, key=k)
# test
assert f(lambda x: -x, [1, 3, 2]) == [3, 2, 1]
""",
    "a builtin as argument": """
def f(k): return [k([1]), k([])]
# test
assert f(len) == [1, 0]
""",
    "an argument that raises": """
def f(k):
    try: k()
    except ValueError as e: return str(e)
# test
def k(): raise ValueError('no')
assert f(k) == 'no'
""",
    "calls back and forth": """
def f(n, again): return n if n < 1 else again(n - 1, f)
# test
def again(n, g): return g(n, again)
assert f(10, again) == 0
""",
    "a function as answer": """
def f(n): return lambda x: x + n
# test
assert f(2)(3) == 5
""",
    "an expected exception with its arguments": """
def f(x): raise ValueError('no', 3)
# test
try: f(1)
except ValueError as e: assert e.args == ('no', 3)
else: assert False
""",
    "an exception class of the program": """
class Mine(KeyError): pass
def f(): raise Mine('k')
# test
try: f()
except KeyError as e: assert type(e).__name__ == 'Mine'
else: assert False
""",
    "nan": """
def f(x): return x
# test
n = f(float('nan'))
assert n != n
""",
    "floats to the last bit": """
def f(): return [-0.0, 0.1 + 0.2, 5e-324, float('-inf')]
# test
import math
x = f()
assert math.copysign(1, x[0]) == -1 and x[1:] == [0.30000000000000004, 5e-324, float('-inf')]
""",
    "large integers": """
def f(): return 10 ** 5000
# test
assert f() == 10 ** 5000
""",
    "every builtin type": """
def f():
    return (1, True, None, ..., 2j, b'x', 'é\\ud800', {1}, frozenset({2}), range(3), {3: 4}.keys(), int)
# test
assert f() == (1, True, None, ..., 2j, b'x', 'é\\ud800', {1}, {2}, range(3), {3}, int)
""",
    "subclasses as their builtin bases": """
from collections import *
def f(): return OrderedDict(a=1), Counter('aa'), namedtuple('P', 'x')(1), defaultdict(int)
# test
assert f() == ({'a': 1}, {'a': 2}, (1,), {})
""",
    "arguments by name": """
def f(a, *, b=2, **c): return a, b, c
# test
assert f(1, b=3, d=4) == (1, 3, {'d': 4})
""",
    "a dict in its order": """
def f(): return {'b': 1, 'a': 2}
# test
assert list(f()) == ['b', 'a']
""",
    "types that are equal and not the same": """
def f(): return [True, 1.0, (1,)]
# test
a, b, c = f()
assert a is True and type(b) is float and c != [1]
""",
    "an object that cannot travel": """
class A: __eq__ = lambda s, o: True
a = A()
def f(): return a
# test
assert f() != 1 and not f() == None and f() is f() and f() == f()
""",
    "a list in itself": """
def f(): x = [1]; x.append(x); return x
# test
assert f()[0] == 1 and f() != [1, f()]
""",
}  # fmt: skip


ELSEWHERE = ("an object that cannot travel", "a list in itself")
"""Cases that are not as in one process."""


@pytest.mark.parametrize("case", [case for case in CASES if case not in ELSEWHERE])
def test_in_one_process_the_same_holds(case):
    hold_in_one_process(CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_values_behave_as_in_one_process(case, sandbox):
    hold_in_the_sandbox(CASES[case], sandbox)


def test_helpers_of_the_prompt_are_the_judges_own(sandbox):
    prompt = "def half(x):\n    return x / 2\n\ndef f(x):\n    '''Twice.'''\n"
    test = "assert half(f(3)) == 3\nassert f.__doc__ == 'Twice.'"
    assert judged("    return 2 * x\n", test, sandbox, prompt=prompt).passed
    forged = "    return 0\nhalf = lambda x: 3\n"
    assert not judged(forged, test, sandbox, prompt=prompt).passed


def test_an_exception_class_of_the_prompt_is_the_judges_own(sandbox):
    prompt = "class Mine(Exception):\n    pass\n\ndef f(x):\n    '''Raise.'''\n"
    test = "try: f(1)\nexcept Mine as e: assert e.args == (2,)\nelse: assert False"
    assert judged("    raise Mine(2)\n", test, sandbox, prompt=prompt).passed
