// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Random texts that are hard on a tokenizer: pieces of every kind side by side.
#pragma once

#include <rapidcheck.h>

#include <string>
#include <string_view>
#include <vector>

namespace trireme::testing {

// One piece: words, runs of white space of every kind, contractions, other scripts, broken UTF-8.
inline rc::Gen<std::string> text_piece() {
  using namespace std::string_literals;
  const auto one_of = [](std::vector<std::string> pieces) {
    return rc::gen::elementOf(std::move(pieces));
  };
  const auto bytes = [](std::string alphabet, std::size_t most) {
    return rc::gen::mapcat(rc::gen::inRange<std::size_t>(1, most), [alphabet](std::size_t length) {
      return rc::gen::container<std::string>(length, rc::gen::elementOf(alphabet));
    });
  };
  return rc::gen::oneOf(
      bytes("abcdeABCDEstmdrvlz", 12), bytes(" ", 6), bytes(" \n\t\r\v\f", 5),
      bytes("0123456789", 6), bytes("!-_{}'\"<>/*.", 5), bytes("ab '1.\n", 90),
      one_of(
          {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'", "''", " '", "'r", "'l", "'S", "'é"}),
      one_of(
          {"é", "ß", "日本語", "ру́с", "٣", "Ⅷ", "½", "😀", "👩‍🚀", "e\u0301", "ǅ", "ª", "€"}),
      one_of({"\u00a0", "\u2028", "\u3000", "\u1680", "\u0085", "\u180e", "\u200b", "\ufeff",
              "\u202f", "\u2029"}),
      one_of({"\x80", "\xff", "\xc0\xaf", "\xe2\x82", "\xed\xa0\x80", "\xf4\x90\x80\x80",
              "\xf0\x9f", "\xc3", "\0"s, "\x01", "\x7f", "\x1c"}),
      rc::gen::container<std::string>(rc::gen::arbitrary<char>()));
}

// Up to a few hundred bytes, so that the paths for whole blocks of 64 bytes are taken too.
inline rc::Gen<std::string> text() {
  return rc::gen::map(rc::gen::container<std::vector<std::string>>(text_piece()),
                      [](const std::vector<std::string>& pieces) {
                        std::string joined;
                        for (const std::string& piece : pieces) {
                          joined += piece;
                        }
                        return joined;
                      });
}

}  // namespace trireme::testing
