"""Values of Python's library through the judge: equal to what they equal in one process, and with what can be read."""

import pytest

from support.judging import hold_in_one_process, hold_in_the_sandbox, judged

CASES = {
    "fractions": """
from fractions import Fraction
def f(a, b): return Fraction(a, b)
# test
from fractions import Fraction
x = f(1, 2)
assert x == 0.5 and x == Fraction(2, 4) and x + 1 == Fraction(3, 2) and str(x) == '1/2' and f(4, 2) == 2
""",
    "decimals": """
from decimal import Decimal
def f(x): return Decimal(x)
# test
from decimal import Decimal
assert f('3') == 3 and f('1.10') == Decimal('1.1') and str(f('1.10')) == '1.10' and f('1.1') != 1.1
assert f('NaN') != f('NaN') and f('-Infinity') == float('-inf')
""",
    "deques": """
from collections import deque
def f(x): return deque(x, maxlen=3)
# test
from collections import deque
d = f([1, 2])
assert d == deque([1, 2]) and d != [1, 2] and d[0] == 1 and d.maxlen == 3 and list(d) == [1, 2]
""",
    "counters": """
from collections import Counter
def f(x): return Counter(x)
# test
from collections import Counter
c = f('aab')
assert c == {'a': 2, 'b': 1} and c['z'] == 0 and c.most_common(1) == [('a', 2)] and c == Counter('baa')
assert c == Counter(a=2, b=1, z=0) and c != {'a': 2, 'b': 1, 'z': 0}
""",
    "ordered dicts": """
from collections import OrderedDict
def f(): return OrderedDict([('b', 1), ('a', 2)])
# test
from collections import OrderedDict
o = f()
assert o == {'a': 2, 'b': 1} and o != OrderedDict([('a', 2), ('b', 1)]) and o == OrderedDict([('b', 1), ('a', 2)])
assert o.keys() == {'a', 'b'} and list(o) == ['b', 'a'] and o.popitem(last=False) == ('b', 1)
""",
    "default dicts": """
from collections import defaultdict
def f(): return defaultdict(list, a=[1]), defaultdict(lambda: 7)
# test
a, b = f()
assert a == {'a': [1]} and a['z'] == [] and b['x'] == 7 and b == {'x': 7}
""",
    "named tuples": """
from collections import namedtuple
from typing import NamedTuple
Point = namedtuple('Point', 'x y')
class Pair(NamedTuple):
    count: int
    index: str = 'b'
def f(): return Point(1, 2), Pair(3)
# test
p, q = f()
assert p == (1, 2) and p.x == 1 and p.y == p[1] == 2 and hash(p) == hash((1, 2)) and p in {(1, 2)} and p < (1, 3)
assert q == (3, 'b') and q.count == 3 and q.index == 'b' and q._asdict() == {'count': 3, 'index': 'b'}
assert repr(p) == 'Point(x=1, y=2)' and p._replace(x=5) == (5, 2) and p._fields == ('x', 'y') and isinstance(p, tuple)
""",
    "a named tuple of the test": """
def f(p): return p.x + p.y, p
# test
from collections import namedtuple
p = namedtuple('Point', 'x y')(1, 2)
total, q = f(p)
assert total == 3 and q is p
""",
    "dates and times": """
import datetime as dt
def f():
    utc = dt.timezone(dt.timedelta(hours=1))
    return [dt.date(2020, 2, 29), dt.datetime(2020, 1, 1, 1, 2, 3, 4, utc), dt.time(1, 2), dt.timedelta(-1, 5), utc]
# test
import datetime as dt
date, moment, time, delta, zone = f()
assert date == dt.date(2020, 2, 29) and date.month == 2 and date < dt.date(2021, 1, 1) and str(date) == '2020-02-29'
assert moment == dt.datetime(2020, 1, 1, 0, 2, 3, 4, dt.timezone.utc) and moment.hour == 1 and time == dt.time(1, 2)
assert delta == dt.timedelta(-1, 5) and zone == dt.timezone(dt.timedelta(hours=1)) and type(moment) is dt.datetime
""",
    "a time zone by rules stays with its program": """
import datetime as dt
class Rules(dt.tzinfo):
    utcoffset = dst = lambda self, when: dt.timedelta(hours=2)
def f(): return dt.datetime(2020, 1, 1, tzinfo=Rules())
# test
assert f().year == 2020 and str(f()) == '2020-01-01 00:00:00+02:00'
""",
    "the other containers of the library": """
from array import array
from collections import ChainMap, UserDict, UserList, UserString
from types import MappingProxyType, SimpleNamespace
def f():
    return (UserList([1]), UserDict(a=1), UserString('ab'), ChainMap({'a': 1}, {'b': 2}), MappingProxyType({'a': 1}),
            SimpleNamespace(a=1), array('i', [1, 2]), memoryview(b'ab'))
# test
from types import SimpleNamespace
from array import array
assert f() == ([1], {'a': 1}, 'ab', {'a': 1, 'b': 2}, {'a': 1}, SimpleNamespace(a=1), array('i', [1, 2]), b'ab')
assert f()[5].a == 1 and list(f()[6]) == [1, 2]
""",
    "what the program does to the library's containers": """
def f(queue, count, order, table):
    queue.appendleft(0); count['b'] += 1; order.move_to_end('a'); table['x'].append(1)
# test
from collections import Counter, OrderedDict, defaultdict, deque
q, c, o, t = deque([1], maxlen=5), Counter('a'), OrderedDict(a=1, b=2), defaultdict(list)
f(q, c, o, t)
assert q == deque([0, 1]) and c == {'a': 1, 'b': 1} and list(o) == ['b', 'a'] and t == {'x': [1]}
""",
    "values of the library as arguments": """
def f(a, b, c, d): return a * 2, b * 2, c.year, d.popleft()
# test
import datetime, decimal, fractions
from collections import deque
d = deque([1, 2])
assert f(fractions.Fraction(1, 2), decimal.Decimal('1.5'), datetime.date(2020, 1, 1), d) == (1, 3, 2020, 1)
assert d == deque([2])
""",
    "values of the library inside of containers": """
from fractions import Fraction
from collections import Counter, deque
def f(): return {Fraction(1, 2): [Counter('a')]}, {Fraction(2)}, deque([deque([Fraction(3)])])
# test
from collections import deque
assert f() == ({0.5: [{'a': 1}]}, {2}, deque([deque([3])]))
""",
    "a nan of the test keeps its identity": """
def f(x): return [x[0]], sorted(x[:1]), (v for v in x), {'k': x[0]}
# test
n = float('nan'); m = float('nan')
a, b, c, d = f([n, 1.0])
assert a == [n] == b and list(c) == [n, 1.0] and a[0] is n and d == {'k': n} and n in a and a != [m] and a[0] != n
""",
    "a nan that the program keeps is one, and another than the test's": """
kept = []
def f(x):
    kept.append(x)
    return kept, float('nan')
# test
n = float('nan')
f(n)
all_, fresh = f(1)
assert all_ == [n, 1] and [fresh] != [n] and [f(0)[1]] != [fresh] and f(0)[0][0] is n
""",
    "the nan of the library is that of the library": """
import math
def f(): return [math.nan], [float('nan')]
# test
import math
a, b = f()
assert a == [math.nan] and b != [math.nan] and f()[0] == a
""",
    "an immutable argument that comes back is itself": """
def f(x): return x
# test
x = (1, [2]); s = frozenset([1])
assert f(x) is x and f([x])[0] is x and f(s) is s
""",
}  # fmt: skip
LIES = """
from collections import Counter, OrderedDict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction
import datetime
yes = dict(__eq__=lambda s, o: True, __ne__=lambda s, o: False, __hash__=lambda s: 0, __contains__=lambda s, o: True)
def f(kind):
    base, *args = {
        'deque': [deque], 'counter': [Counter], 'order': [OrderedDict], 'decimal': [Decimal, '9'],
        'fraction': [Fraction, 9], 'date': [datetime.date, 1, 1, 1], 'tuple': [namedtuple('P', 'x'), 9],
        'list': [list], 'dict': [dict], 'set': [set],
        'str': [str], 'int': [int, 9], 'float': [float, 9]}[kind]
    return type('Lie', (base,), yes)(*args)
"""
EXPECTED = {
    "deque": "deque([1])", "counter": "Counter('a')", "order": "OrderedDict(a=1)", "decimal": "Decimal(1)",
    "fraction": "Fraction(1)", "date": "datetime.date(2, 2, 2)", "tuple": "(1,)", "list": "[1]", "dict": "{1: 2}",
    "set": "{1}", "str": "'a'", "int": "1", "float": "1.5",
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_in_one_process_the_same_holds(case):
    hold_in_one_process(CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_values_of_the_library_behave_as_in_one_process(case, sandbox):
    hold_in_the_sandbox(CASES[case], sandbox)


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_subclass_that_equals_everything_equals_what_its_base_does(kind, sandbox):
    imports = "import datetime\nfrom collections import Counter, OrderedDict, deque\n"
    imports += "from decimal import Decimal\nfrom fractions import Fraction\n"
    test = f"{imports}assert f({kind!r}) != {EXPECTED[kind]}\nassert f({kind!r}) == {EXPECTED[kind]}"
    verdict = judged(LIES, test, sandbox)
    assert (verdict.outcome, verdict.message) == ("failed", "AssertionError")
    assert judged(LIES, "\n".join(test.splitlines()[:-1]), sandbox).passed
