#!/usr/bin/env python3
# Copyright 2026 The Trireme authors
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/safetensors/ with the format's reference implementation.

    pip install safetensors numpy
    python3 tools/make_safetensors_golden.py

reference.safetensors  one tensor of each dtype that numpy and Trireme share
verdicts.json          malformed and odd files as hex, each with the verdict of the reference

A case marked "stricter" is one that the reference accepts and Trireme refuses, with the reason.
With --check FILE it prints what the reference reads from a file that Trireme wrote.
"""
import json
import pathlib
import struct
import sys
import tempfile

import numpy
import safetensors
import safetensors.numpy

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/safetensors"
MAX_HEADER = 100_000_000


def reference_tensors():
    return {
        "f32": numpy.arange(15, dtype=numpy.float32).reshape(3, 5) / 4 - 1,
        "scalar": numpy.array(2.5, dtype=numpy.float64),
        "f16": numpy.arange(7, dtype=numpy.float16) - 3,
        "i64.\u00e4": numpy.array([7, -3_000_000_001, 1], dtype=numpy.int64),
        "i32": numpy.array([[-5], [70_000]], dtype=numpy.int32),
        "i8": numpy.arange(-3, 4, dtype=numpy.int8),
        "u8": numpy.array([255, 1, 128], dtype=numpy.uint8),
        "empty": numpy.zeros((0, 3), dtype=numpy.float32),
    }


def raw(header, data=b"", length=None):
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def tensor(dtype="U8", shape="[2]", offsets="[0,2]", name="a", extra=""):
    return f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}{extra}}}'


def cases():
    """Yields name, bytes, and why Trireme is stricter (None where it must agree)."""
    two = b"xy"
    yield "plain", raw("{" + tensor() + "}", two), None
    yield "no tensors", raw("{}"), None
    yield "padding of spaces", raw("{" + tensor() + "}      ", two), None
    yield "padding of newlines", raw("{" + tensor() + "}\n\n", two), None
    yield "padding of zero bytes", raw(b"{" + tensor().encode() + b"}\0\0", two), None
    yield "leading space", raw(" {" + tensor() + "}", two), "the format says: begins with {"
    yield "byte order mark", raw(b"\xef\xbb\xbf{}"), None
    yield "empty file", b"", None
    yield "seven bytes", b"\0" * 7, None
    yield "header length 0", raw(b""), None
    yield "header length beyond file", raw("{}", length=3), None
    yield "header length 2^63", raw("{}", length=1 << 63), None
    yield "header length 2^64-1", raw("{}", length=(1 << 64) - 1), None
    yield "header length just above limit", raw("{}", length=MAX_HEADER + 1), None
    yield "big endian length", struct.pack(">Q", 2) + b"{}", None
    yield "data after header is missing", raw("{" + tensor() + "}", b"x"), None
    yield "trailing byte", raw("{" + tensor() + "}", b"xyz"), None
    yield "trailing text in header", raw("{" + tensor() + "}x", two), None
    yield "NUL then text in header", raw(b"{" + tensor().encode() + b"}\0x", two), None
    yield "array instead of object", raw("[]"), None
    yield "string instead of object", raw('"a"'), None
    yield "not UTF-8", raw(b'{"\xff":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', two), None
    yield "overlong UTF-8", raw(b'{"\xc0\x80":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', two), None
    yield "lone surrogate", raw('{"\\ud800":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', two), None
    yield "escaped NUL in name", raw("{" + tensor(name="a\\u0000") + "}", two), None
    yield "empty name", raw("{" + tensor(name="") + "}", two), None
    yield "scalar", raw("{" + tensor(shape="[]", offsets="[0,1]") + "}", b"x"), None
    yield "empty tensor", raw("{" + tensor(shape="[0]", offsets="[0,0]") + "}"), None
    yield "two empty tensors", raw("{" + tensor(shape="[0]", offsets="[0,0]") + "," + tensor(name="b", shape="[0]", offsets="[0,0]") + "}"), None
    yield "tensors out of order", raw("{" + tensor(name="b", offsets="[2,4]") + "," + tensor() + "}", b"wxyz"), None
    yield "hole at start", raw("{" + tensor(offsets="[1,3]") + "}", b"xyz"), None
    yield "hole in the middle", raw("{" + tensor() + "," + tensor(name="b", offsets="[3,5]") + "}", b"vwxyz"), None
    yield "overlap", raw("{" + tensor() + "," + tensor(name="b", offsets="[1,3]") + "}", b"xyz"), None
    yield "same bytes twice", raw("{" + tensor() + "," + tensor(name="b") + "}", two), None
    yield "end before begin", raw("{" + tensor(offsets="[2,0]") + "}", two), None
    yield "offsets beyond the file", raw("{" + tensor(shape="[9]", offsets="[0,9]") + "}", two), None
    yield "offset 2^64-1", raw("{" + tensor(offsets="[0,18446744073709551615]") + "}", two), None
    yield "offset 2^64", raw("{" + tensor(offsets="[0,18446744073709551616]") + "}", two), None
    yield "negative offset", raw("{" + tensor(offsets="[-1,1]") + "}", two), None
    yield "offset -0", raw("{" + tensor(offsets="[-0,2]") + "}", two), None
    yield "fractional offset", raw("{" + tensor(offsets="[0,2.0]") + "}", two), None
    yield "exponent offset", raw("{" + tensor(offsets="[0,2e0]") + "}", two), None
    yield "one offset", raw("{" + tensor(offsets="[0]") + "}", two), None
    yield "three offsets", raw("{" + tensor(offsets="[0,2,2]") + "}", two), None
    yield "offsets as text", raw("{" + tensor(offsets='["0","2"]') + "}", two), None
    yield "shape disagrees", raw("{" + tensor(shape="[3]") + "}", two), None
    yield "shape overflows", raw("{" + tensor(shape="[4294967296,4294967296,4]") + "}", two), None
    yield "shape overflows to size", raw("{" + tensor(shape="[4611686018427387904,4,1]", offsets="[0,0]") + "}"), None
    yield "zero then overflow", raw("{" + tensor(shape="[0,4294967296,4294967296]", offsets="[0,0]") + "}"), None
    yield "overflow then zero", raw("{" + tensor(shape="[4294967296,4294967296,0]", offsets="[0,0]") + "}"), None
    yield "negative dim", raw("{" + tensor(shape="[-2]") + "}", two), None
    yield "fractional dim", raw("{" + tensor(shape="[2.0]") + "}", two), None
    yield "null dim", raw("{" + tensor(shape="[null]") + "}", two), None
    yield "shape is a number", raw("{" + tensor(shape="2") + "}", two), None
    yield "NaN in shape", raw("{" + tensor(shape="[NaN]") + "}", two), None
    yield "dtype unknown", raw("{" + tensor(dtype="Q8") + "}", two), None
    yield "dtype in lower case", raw("{" + tensor(dtype="u8") + "}", two), None
    yield "dtype is a number", raw('{"a":{"dtype":1,"shape":[2],"data_offsets":[0,2]}}', two), None
    yield "dtype BOOL", raw("{" + tensor(dtype="BOOL") + "}", two), "Trireme holds no booleans"
    yield "dtype U16", raw("{" + tensor(dtype="U16", shape="[1]") + "}", two), "Trireme holds no u16"
    yield "dtype F8_E4M3", raw("{" + tensor(dtype="F8_E4M3") + "}", two), "Trireme holds no f8"
    yield "dtype missing", raw('{"a":{"shape":[2],"data_offsets":[0,2]}}', two), None
    yield "shape missing", raw('{"a":{"dtype":"U8","data_offsets":[0,2]}}', two), None
    yield "offsets missing", raw('{"a":{"dtype":"U8","shape":[2]}}', two), None
    yield "unknown field", raw("{" + tensor(extra=',"x":1') + "}", two), "nothing unknown is passed over"
    yield "field twice", raw("{" + tensor(extra=',"dtype":"U8"') + "}", two), None
    yield "tensor twice", raw("{" + tensor() + "," + tensor() + "}", two), "the format says: no key twice"
    yield "tensor is null", raw('{"a":null}'), None
    yield "tensor is an array", raw('{"a":["U8",[2],[0,2]]}', two), "the format says: an object"
    yield "metadata", raw('{"__metadata__":{"k":"v"},' + tensor() + "}", two), None
    yield "metadata last", raw("{" + tensor() + ',"__metadata__":{"k":"v"}}', two), None
    yield "empty metadata", raw('{"__metadata__":{}}'), None
    yield "metadata with a number", raw('{"__metadata__":{"k":1}}'), None
    yield "metadata with null", raw('{"__metadata__":{"k":null}}'), None
    yield "metadata nested", raw('{"__metadata__":{"k":{}}}'), None
    yield "metadata is null", raw('{"__metadata__":null}'), "the format says: an object"
    yield "metadata is a string", raw('{"__metadata__":"x"}'), None
    yield "metadata twice", raw('{"__metadata__":{},"__metadata__":{}}'), None
    yield "metadata key twice", raw('{"__metadata__":{"k":"v","k":"w"}}'), "the format says: no key twice"
    yield "metadata that is a tensor", raw("{" + tensor(name="__metadata__") + "}", two), None
    yield "deep nesting", raw('{"a":' + "[" * 1000 + "]" * 1000 + "}"), None
    yield "comment", raw("{/*c*/" + tensor() + "}", two), None
    yield "trailing comma", raw("{" + tensor() + ",}", two), None
    yield "single quotes", raw("{'a':1}"), None
    yield "unfinished", raw('{"a":{"dtype":"U8"'), None
    yield "data not aligned to elements", raw("{" + tensor(dtype="F64", shape="[1]", offsets="[0,8]") + "} ", b"01234567"), None


def reference_accepts(content):
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(content)
        file.flush()
        try:
            with safetensors.safe_open(file.name, framework="np") as opened:
                opened.keys()
            return True
        except (safetensors.SafetensorError, OSError, ValueError):
            return False


def main():
    if sys.argv[1:2] == ["--check"]:
        for name, value in sorted(safetensors.numpy.load_file(sys.argv[2]).items()):
            print(repr(name), value.dtype, value.shape, value.ravel()[:5].tolist())
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(
        reference_tensors(), FOLDER / "reference.safetensors", metadata={"format": "np"})
    lines = []
    for name, content, stricter in cases():
        entry = {"name": name, "reference_accepts": reference_accepts(content)}
        if stricter:
            entry["stricter"] = stricter
        entry["hex"] = content.hex()
        lines.append(json.dumps(entry))
    (FOLDER / "verdicts.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"{len(lines)} cases, safetensors {safetensors.__version__}")


if __name__ == "__main__":
    main()
