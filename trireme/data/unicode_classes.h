// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What GPT-2's split pattern asks of a character: letter, number, white space, or anything else.
//
// The table is filled once per process by PCRE2's own property tests, so that its Unicode version
// is PCRE2's. White space is Unicode's White_Space: PCRE2's \s without U+180E, which it still
// counts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace trireme {

enum class CharClass : std::uint8_t { kOther = 0, kLetter = 1, kNumber = 2, kSpace = 3 };

// One character of a text, or one byte that is not part of well-formed UTF-8.
struct Utf8Char {
  std::uint32_t code_point = 0;  // kInvalidByte for an invalid byte
  std::uint32_t length = 1;      // bytes
};
inline constexpr std::uint32_t kInvalidByte = 0xFFFFFFFF;

// Reads the character at the front of text, which is not empty. Well-formed means Unicode's table
// 3-7: no overlong forms, no surrogates, nothing above U+10FFFF.
Utf8Char read_utf8(std::string_view text);

// Appends code_point, a Unicode scalar value, as UTF-8.
template <class Bytes>
void append_utf8(Bytes& out, std::uint32_t code_point) {
  const auto put = [&out](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | (code_point >> 6));
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | (code_point >> 12));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | (code_point >> 18));
    put(0x80 | ((code_point >> 12) & 0x3F));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

// Constant after construction; any thread may use it.
class UnicodeClasses {
 public:
  // The one table of the process, made at the first call (about 30 ms). Immutable.
  static const UnicodeClasses& table();

  CharClass of(std::uint32_t code_point) const {
    return code_point > 0x10FFFF ? CharClass::kOther : static_cast<CharClass>(classes_[code_point]);
  }

 private:
  UnicodeClasses();
  std::vector<std::uint8_t> classes_;  // by code point
};

}  // namespace trireme
