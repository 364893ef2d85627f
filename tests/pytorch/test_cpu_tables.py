"""The command that measures the CPU tables, and the page that is made of them, on a small model."""

from benchmarks import cpu
from support.documentation import generator

ROWS = {
    "3b": ["torch-cpu::dtype=float32", "torch-cpu::dtype=bfloat16,mode=jit", "llama-cpp:q4_0"],
    "7b": ["torch-cpu::dtype=float32,batch_size=1000000", "llama-cpp:f16"],
    "batch": ["llama-cpp:q4_0"],
    "context": ["llama-cpp:q4_0", "torch-cpu::dtype=bfloat16"],
    "threads": [],
}


def test_from_the_command_to_the_page(tmp_path, capfd):
    sizes = {"32": "4", "200": "12", "1,2,4,8,16,32": "1,2", "128,1024,4032,8192": "64,128"}
    parts = {
        name: ("dummy:tiny", [sizes.get(word, word) for word in how], ROWS[name])
        for name, (_, how, _) in cpu.PARTS.items()
    }
    arguments = ["--output", str(tmp_path)]
    assert cpu.main(arguments, parts) == 0
    assert {file.name for file in (tmp_path / "3b").iterdir()} == {"rows.jsonl", "table.md", "manifest.json"}
    assert [file.name for file in (tmp_path / "threads" / "plots").iterdir()] == ["speed.svg"]

    page = generator("generate_performance").page(tmp_path)
    lines = page.splitlines()
    assert [line.strip("#| ") for line in lines if line.startswith("##")] == [
        "The study's request on a CPU", "Growth with the context", "Growth with the batch", "Growth with the threads",
    ]  # fmt: skip
    [first] = [line for line in lines if line.startswith("| torch fp32 eager |") and " 1.00 | 1 |" in line]
    assert first.count("|") == 8
    assert any(line.startswith("| torch bf16 jit |") for line in lines)
    assert any(line.startswith("| torch fp32 eager | does not fit |") for line in lines)
    assert any(line.startswith("What is told of torch fp32 eager: ") for line in lines)
    assert "|  | 64 | 128 |" in lines
    assert max(map(len, lines)) <= 120
    assert "|  | 1 | 2 |" in lines
    assert any(line.startswith("| llama.cpp q4_0, 1 thread |") or "q4_k_m, 1 thread" in line for line in lines)

    capfd.readouterr()
    cpu.main(arguments, parts)
    assert "has 3 rows already" in capfd.readouterr().err
