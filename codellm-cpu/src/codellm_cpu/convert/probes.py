"""What a conversion is tried on: texts for its tokenizer, and a few lines of code for its weights."""

TEXTS = (
    "",
    " ",
    "  ",
    "\n",
    "\t",
    "\r\n",
    "a",
    " a",
    "▁a",
    "def f(x):\n    return x + 1\n",
    "class A:\n\tdef b(self):\r\n\t\treturn 'c'\r\n\r\n\r\n",
    "    if x == 1:  # comment\n        pass\n" * 8,
    *(" " * length + "x" for length in (2, 3, 4, 5, 7, 8, 12, 16, 31, 64, 129)),
    "x" + " " * 64,
    "\n" * 9 + "  \n \n" + "\t" * 5 + " \t \t",
    "0 12 345 6789 01234567890123456789 3.14 1e-10 0xFF 2024-01-01",
    "١٢٣ ½ ² Ⅷ 五",
    "naïve café Ångström ﬁ ß õ÷Áý",
    "e\u0301 n\u0303 \u1e9b\u0323 \u0915\u093c \u05e9\u05b8 a\u0308\u0304b",
    "Привет Ελλάδα שלום مرحبا हिन्दी ไทย",
    "你好，世界。こんにちは カタカナ 안녕하세요 𠀀",
    "🙂👩‍👩‍👧🏽🇫🇷 \u200b\u00a0\u3000\ufeff\u202e\u2028",
    "I'm you're they'll it's we've he'd don't DON'T I'M 's",
    "a_b-c+d=e;f:g,h.i/j\\k|l!m?n@o#p$q%r^s&t*u(v)w[x]y{z}~`\"' €£™√∑→",
    "camelCase snake_case SCREAMING_CASE x1y2 __init__ 'single' \"double\"",
    "\x00\x01\x7f\x85",
    "https://example.com/a?b=c&d=%20#e",
    "<0x0A> <unk> <s> </s> <|endoftext|> <fim_prefix> <|fim_prefix|> <｜fim▁begin｜> ▁<PRE> <|im_start|> [INST]",
)
"""Each is one of what tokenizers disagree about: whitespace, digits, scripts, marks, symbols, and special strings."""

CODE = """def largest(values):
    result = None
    for value in values:
        if result is None or value > result:
            result = value
    return result
"""

POSITIONS = 24
"""Tokens of `CODE` that go through the weights: as many as one product of matrices takes at the cost of a few."""
