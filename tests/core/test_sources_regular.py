"""Files that are none, and files that would cost more than they may: refused before they are read."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from codellm.errors import ModelFileError, ModelNotFoundError
from codellm.sources import local, regular, safetensors
from codellm.sources.local import file, read_licence
from codellm.sources.regular import open_regular, quoted, read_json, read_regular, read_text, shown
from codellm.sources.safetensors import SafetensorsFiles
from support.safetensors_bytes import packed


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def test_only_files_are_opened(tmp_path):
    listening = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listening))
        others = {
            tmp_path: "a directory",
            pipe(tmp_path / "pipe"): "a named pipe",
            Path("/dev/null"): "a device",
            listening: "a socket",
        }
        for path, says in others.items():
            with pytest.raises(ModelFileError, match=f"it is {says}, not a file"), open_regular(path):
                pass
    with pytest.raises(ModelNotFoundError, match="no such file"):
        read_regular(tmp_path / "gone", 1)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(ModelFileError, match="symbolic links"):
        read_regular(loop, 1)


def test_every_reader_of_a_model_refuses_a_pipe(tmp_path):
    path = pipe(tmp_path / "model.safetensors")
    for reader in (file, read_json, lambda path: SafetensorsFiles([path])):
        with pytest.raises(ModelFileError, match=r"model\.safetensors: cannot be read, it is a named pipe"):
            reader(path)
    assert read_licence(path) is None


def test_an_error_while_reading_names_the_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    with pytest.raises(ModelFileError, match="file: cannot be read"), open_regular(path):
        raise OSError(5, "Input/output error")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 11983680\n"


@pytest.mark.parametrize(
    "content",
    [
        POINTER,
        POINTER.replace(b"\n", b"\r\n"),
        POINTER.replace(b"git-lfs", b"hawser"),
        POINTER.replace(b"oid", b"ext-0-foo sha256:" + b"b" * 64 + b"\noid"),
        POINTER + b" " * 200,
    ],
)
def test_a_pointer_of_git_lfs_is_named_as_that_by_every_reader(tmp_path, content):
    from codellm.tokenizer import HFTokenizer
    from codellm_cpu.llama.header import read_header

    for name, read in {
        "model.safetensors": lambda path: SafetensorsFiles([path]),
        "model.gguf": file,
        "other.gguf": read_header,
        "config.json": read_json,
        "tokenizer.json": lambda path: HFTokenizer(path, {}),
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ModelFileError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: is git-lfs's pointer to the file, not the file itself; ")
        assert "run `git lfs pull`" in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": "\xef\xbb\xbf"}')
    assert read_text(path) == '{"a": "\ufeff"}'
    assert read_json(path) == {"a": "\ufeff"}
    path.write_bytes(b"{\xff}")
    with pytest.raises(ModelFileError, match=r"config\.json: byte 1 is not UTF-8"):
        read_json(path)


def test_the_licence_is_read_whatever_ends_the_lines(tmp_path):
    for text in (
        b"---\nlicense: mit\n---\n",
        b"---\r\nlicense: mit\r\n---\r\n",
        b"\xef\xbb\xbf---\nlicense: mit\n---\n",
    ):
        (tmp_path / "README.md").write_bytes(text)
        assert read_licence(tmp_path / "README.md") == "mit"


def test_names_are_shown_in_one_line():
    assert shown(Path("a\nb\x1b[0m\u202e")) == "a\\nb\\x1b[0m\\u202e"
    assert shown(Path(os.fsdecode(b"\xff"))) == "\\udcff"
    assert shown(Path("модель 1.gguf")) == "модель 1.gguf"
    assert quoted("a\n") == r"'a\n'"
    assert len(quoted("x" * 10_000)) == 102


def test_json_and_headers_have_limits(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{}")
    os.truncate(path, regular.MAX_JSON + 1)  # zeros that take no space on the disk
    with pytest.raises(ModelFileError, match=r"config\.json: longer than 64000000 bytes"):
        read_json(path)
    weights = tmp_path / "model.safetensors"
    header = b'{"a":' + b"[" * (safetensors.MAX_NESTED + 1)
    weights.write_bytes(packed(header))
    with pytest.raises(ModelFileError, match=f"header of more than {safetensors.MAX_NESTED} lists and objects"):
        SafetensorsFiles([weights])


def test_an_index_of_a_million_tensors_is_read_or_refused(tmp_path):
    """It may name one file a million times, and no file is opened that is not there."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    names = {f"t{number}": f"{number}.safetensors" for number in range(1_000_000)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(ModelFileError, match=r"0\.safetensors: missing"):
        local.read_directory(tmp_path, "test")


def test_a_key_twice_in_an_index_is_harmless(tmp_path):
    """The index only names files; what stands in them is read from their headers."""
    (tmp_path / "config.json").write_text('{"a": 1, "a": 2}')
    (tmp_path / "tokenizer.json").write_text("{}")
    header = b'{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    (tmp_path / "1.safetensors").write_bytes(packed(header, b"x"))
    index = '{"weight_map": {"t": "2.safetensors", "t": "1.safetensors"}}'
    (tmp_path / "model.safetensors.index.json").write_text(index)
    tensors = local.read_directory(tmp_path, "test").tensors
    assert tensors is not None
    assert [info.name for info in tensors] == ["t"]


def test_numbers_and_shapes_without_bounds_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    for shape, says in (("[0, 9223372036854775807]", "absurd"), ("[9223372036854775808]", "no list of sizes")):
        header = f'{{"t":{{"dtype":"U8","shape":{shape},"data_offsets":[0,0]}}}}'.encode()
        path.write_bytes(packed(header))
        with pytest.raises(ModelFileError, match=says):
            SafetensorsFiles([path])
    header = b'{"t":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}   '  # JSON's minus zero is zero, and padding is
    path.write_bytes(packed(header))
    assert SafetensorsFiles([path]).read("t").shape == (0,)
