import json
import subprocess
import sys

HEAVY = ("numpy", "huggingface_hub", "tokenizers", "cattrs", "torch", "transformers", "llama_cpp", "matplotlib", "rich")


def imported_by(code: str) -> set[str]:
    script = f"import sys, json\n{code}\njson.dump(sorted(sys.modules), sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr))


def test_help_imports_nothing_heavy_and_no_plugin():
    modules = imported_by("from codellm.cli import main; assert main(['--help']) == 0")
    assert not modules & {*HEAVY, "codellm_cpu", "codellm_eval", "pluggy"}


def test_listing_backends_imports_no_engine():
    modules = imported_by("from codellm.cli import main; assert main(['backends']) == 0")
    assert not modules & {"torch", "transformers", "llama_cpp", "matplotlib", "huggingface_hub", "tokenizers"}


def test_importing_the_library_imports_nothing_heavy():
    assert not imported_by("import codellm; codellm.SamplingParams()") & set(HEAVY)
