import json

from support.plugin_folder import install_plugin, python

HEAVY = (
    "numpy",
    "huggingface_hub",
    "tokenizers",
    "cattrs",
    "torch",
    "transformers",
    "llama_cpp",
    "matplotlib",
    "rich",
    "jinja2",
)


def imported_by(code: str, path=None) -> set[str]:
    done = python("-c", f"import sys, json\n{code}\njson.dump(sorted(sys.modules), sys.stderr)", path=path)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr))


def test_help_imports_nothing_heavy_and_no_plugin(tmp_path):
    names = [f"plugin{number}" for number in range(50)]
    for name in names:
        both = f"{name} = {name}\n[codellm.commands]\n{name} = {name}:command"
        install_plugin(tmp_path, name, "", entry=both, requires=("codellm-core>=0.1",))
    code = "from codellm.cli import main; assert main([{!r}]) == 0"
    modules = imported_by(code.format("--help"), tmp_path)
    assert not modules & {*HEAVY, *names, "codellm_cpu", "codellm_eval", "pluggy", "packaging"}
    # the same plugins are imported where they are needed
    assert set(names) <= imported_by(code.format("backends"), tmp_path)


def test_listing_backends_imports_no_engine():
    modules = imported_by("from codellm.cli import main; assert main(['backends']) == 0")
    assert not modules & {"torch", "transformers", "llama_cpp", "matplotlib", "huggingface_hub", "tokenizers"}


def test_importing_the_library_imports_nothing_heavy():
    assert not imported_by("import codellm; codellm.SamplingParams()") & set(HEAVY)
