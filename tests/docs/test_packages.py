import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("codellm-core", "codellm-cpu", "codellm-eval", "codellm-gpu")


def test_one_version_for_all():
    from codellm import __version__

    for package in PACKAGES:
        project = tomllib.loads((ROOT / package / "pyproject.toml").read_text())["project"]
        assert project["version"] == __version__
        assert all(f"=={__version__}" in need for need in project["dependencies"] if need.startswith("codellm"))
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_one_licence_for_all():
    for package in PACKAGES:
        assert (ROOT / package / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_notices_name_every_dependency():
    for package in PACKAGES:
        notices = (ROOT / package / "THIRD-PARTY.md").read_text()
        project = tomllib.loads((ROOT / package / "pyproject.toml").read_text())["project"]
        for need in project["dependencies"]:
            name = re.match(r"[\w.-]+", need)[0]
            assert name.startswith("codellm") or f"| {name}" in notices, f"{package}: {name}"


def test_imports_run_one_way():
    for package, allowed in {"core": set(), "cpu": set(), "eval": set(), "gpu": set()}.items():
        name = "codellm" if package == "core" else f"codellm_{package}"
        for file in (ROOT / f"codellm-{package}" / "src").rglob("*.py"):
            found = set(re.findall(r"^\s*(?:from|import) (codellm_\w+)", file.read_text(), re.MULTILINE))
            assert found - allowed <= {name}, file


def test_no_folder_of_tests_is_found_as_a_package_that_is_not_installed():
    """pytest has `tests` on its path, for `support`, and so have programs that the tests start."""
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    for package in PACKAGES:
        project = tomllib.loads((ROOT / package / "pyproject.toml").read_text())["project"]
        extras = project.get("optional-dependencies", {}).values()
        for need in (*project["dependencies"], *(need for extra in extras for need in extra)):
            assert re.match(r"[\w.-]+", need)[0].replace("-", "_") not in folders, f"{package}: {need}"


def test_each_package_says_the_same_of_where_it_is():
    urls = [tomllib.loads((ROOT / package / "pyproject.toml").read_text())["project"]["urls"] for package in PACKAGES]
    assert set(urls[0]) == {"Homepage", "Documentation", "Changelog", "Issues", "Source"}
    assert all(each == urls[0] for each in urls)
    assert all(url.startswith("https://github.com/codellm/codellm") for url in urls[0].values())


def test_ruff_is_the_same_before_a_commit_and_in_the_session():
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    [version] = re.findall(r"ruff-pre-commit\n +rev: v(\S+)", hooks)
    assert groups["style"] == [f"ruff=={version}"]
