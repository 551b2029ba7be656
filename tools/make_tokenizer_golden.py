#!/usr/bin/env python3
# Copyright 2026 The Trireme authors
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/tokenizer_*.json: what Hugging Face's `tokenizers` package does with strings
that are hard on a tokenizer.

Run:  python3 tools/make_tokenizer_golden.py tests/golden        (needs: pip install tokenizers)

tokenizer_hf.json      a byte-level BPE that the package itself trained and wrote
tokenizer_gpt2.json    the same in the form that GPT-2's is published in (no model type, merges as
                       "left right" strings, end of text in the vocabulary and last)
tokenizer_cases.json   {"version", "cases": [{"text", "ids_hf", "ids_gpt2"}]}
"""

import json
import pathlib
import random
import sys

import tokenizers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"

SAMPLE = """
It's what we'll see when they've come: you'd say I'm late, but we're not, aren't we? 'Tis.
#include <vector>
namespace trireme { template <class T> inline T max(const T& a, const T& b) { return a < b ? b : a; } }
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] += 1000 * static_cast<int>(i);  // 0x1F, 3.14159, 1e-5
    }
The quick brown fox jumps over the lazy dog; the dog does not mind. The end of the story.
Größe und Länge, naïve café; русский текст и русская речь; 日本語の文章と日本語; العربية; ελληνικά.
""" * 3

FIXED = [
    "", " ", "  ", "\n", "\n\n", " \n", "\n ", "\t\t x", "a", " a", "  a", "   a  ", "a\n\n\nb", "a \n b",
    "a\r\n\r\nb", "Hello world", "it's we'll they've I'm you'd we're isn't", "'s't're've'm'll'd",
    "'S 'T 'Re 'LL", "x''s", "''s", " 's", "\n's", "1's", "é's", "don't!'t", "'sound 'lla 'vex 'rex",
    "rock'n'roll", "'", "' ", " '", "'\n", "123 456", "x86_64", "3.14e-5", "a1b2", "½ Ⅷ ٣٤ ²", "!!! ...---",
    "std::vector<int>& operator[](std::size_t i) const;", "//------------------------------------------",
    "    \t    if (x) {\n\t\treturn;\n    }\n\n\n", "\u00a0x\u00a0\u00a0y", "a\u2028b\u2029c", "a\u3000\u3000b",
    "a \u3000b", "a\u3000 b", "\u1680x", "a\u0085b", "a\u180eb", "a \u180e b", "a\u200bb", "\ufeffbom", "a\u202f1",
    "\u001c\u001d x", "a\x0bb\x0c c", "\x00\x01\x7f", "naïve café Größe", "e\u0301a\u0301", "русский текст's",
    "日本語の文章です。", "العربية ٣", "😀😀 👩\u200d🚀 ok", "ǅ ª ʰ", "\U00020000\U0010ffff", "€100 £5", "x" * 15,
    "x" * 16, "the" * 90, " " * 15, " " * 16 + "a", " " * 300, "ab" * 600, "\n" * 70 + "x", "a" * 63 + "'s b",
    "a" * 62 + " 're", "b" * 64 + "é" + "c" * 70 + "'ll d", "The end.", "<endoftext>", "<|endoftext",
]

PIECES = [
    "the", " and", "'s", "'ll", "'re", "'", " ", "  ", "\n", "\t", "\r\n", "42", "7", "::", "->", "_", "é", "日本",
    "\u00a0", "\u3000", "\u2028", "\u0301", "😀", "Ж", "٣", "\u180e", "\u0085", "values", "Größe", "!", "?!", "x",
]


def random_texts(count):
    random.seed(7)
    return ["".join(random.choices(PIECES, k=random.randint(2, 40))) for _ in range(count)]


def train():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    tokenizer.train_from_iterator(SAMPLE.splitlines(keepends=True), trainer)
    return tokenizer


def in_gpt2_form(hf):
    """The same merges with other ids, in the form of GPT-2's file."""
    vocab = [token for token, _ in sorted(hf["model"]["vocab"].items(), key=lambda item: item[1])]
    vocab = [token for token in vocab if token != END_OF_TEXT] + [END_OF_TEXT]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": len(vocab) - 1, "special": True, "content": END_OF_TEXT, "single_word": False,
                          "lstrip": False, "rstrip": False, "normalized": True}],
        "normalizer": None, "pre_tokenizer": level,
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {"dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
                  "fuse_unk": False, "vocab": {token: id for id, token in enumerate(vocab)},
                  "merges": [m if isinstance(m, str) else " ".join(m) for m in hf["model"]["merges"]]},
    }


def main():
    folder = pathlib.Path(sys.argv[1])
    hf = train()
    hf_json = json.loads(hf.to_str())
    gpt2_json = in_gpt2_form(hf_json)
    gpt2 = Tokenizer.from_str(json.dumps(gpt2_json))
    cases = [{"text": text, "ids_hf": hf.encode(text).ids, "ids_gpt2": gpt2.encode(text).ids}
             for text in FIXED + random_texts(60)]

    def write(name, content):
        text = json.dumps(content, ensure_ascii=True)
        (folder / name).write_text(text + "\n", encoding="utf-8")

    write("tokenizer_hf.json", hf_json)
    write("tokenizer_gpt2.json", gpt2_json)
    write("tokenizer_cases.json", {"tokenizers": tokenizers.__version__, "cases": cases})


if __name__ == "__main__":
    main()
