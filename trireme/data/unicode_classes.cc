// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#define PCRE2_CODE_UNIT_WIDTH 8
#include "trireme/data/unicode_classes.h"

#include <pcre2.h>

#include <algorithm>
#include <memory>
#include <string>

#include "trireme/base/check.h"

namespace trireme {
namespace {

constexpr std::uint32_t kLastCodePoint = 0x10FFFF;

bool is_surrogate(std::uint32_t code_point) { return code_point >= 0xD800 && code_point < 0xE000; }

// Calls found(begin, end) for each match of pattern in text, in order.
template <class Found>
void for_each_match(const char* pattern, const std::string& text, const Found& found) {
  int error = 0;
  PCRE2_SIZE error_at = 0;
  const std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)> code(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED,
                    PCRE2_UTF | PCRE2_UCP, &error, &error_at, nullptr),
      &pcre2_code_free);
  TRIREME_ASSERT(code != nullptr, "PCRE2 refuses {} with error {}", pattern, error);
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // without a JIT the interpreter runs
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create_from_pattern(code.get(), nullptr), &pcre2_match_data_free);
  TRIREME_ASSERT(match != nullptr, "PCRE2 has memory for a match");
  std::size_t at = 0;
  while (at < text.size()) {
    const int matches = pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                                    text.size(), at, PCRE2_NO_UTF_CHECK, match.get(), nullptr);
    if (matches == PCRE2_ERROR_NOMATCH) {
      return;
    }
    TRIREME_ASSERT(matches > 0, "PCRE2 ended with error {}", matches);
    const PCRE2_SIZE* const borders = pcre2_get_ovector_pointer(match.get());
    found(borders[0], borders[1]);
    at = borders[1];
  }
}

bool is_continuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

}  // namespace

Utf8Char read_utf8(std::string_view text) {
  const auto byte = [text](std::size_t i) -> std::uint32_t {
    return static_cast<unsigned char>(text[i]);
  };
  const auto continues = [text](std::size_t i) {
    return i < text.size() && is_continuation(static_cast<unsigned char>(text[i]));
  };
  const std::uint32_t first = byte(0);
  if (first < 0x80) {
    return {first, 1};
  }
  if (first >= 0xC2 && first <= 0xDF && continues(1)) {
    return {((first & 0x1F) << 6) | (byte(1) & 0x3F), 2};
  }
  if ((first & 0xF0) == 0xE0 && continues(1) && continues(2)) {
    const std::uint32_t value = ((first & 0x0F) << 12) | ((byte(1) & 0x3F) << 6) | (byte(2) & 0x3F);
    if (value >= 0x800 && !is_surrogate(value)) {
      return {value, 3};
    }
  }
  if (first >= 0xF0 && first <= 0xF4 && continues(1) && continues(2) && continues(3)) {
    const std::uint32_t value = ((first & 0x07) << 18) | ((byte(1) & 0x3F) << 12) |
                                ((byte(2) & 0x3F) << 6) | (byte(3) & 0x3F);
    if (value >= 0x10000 && value <= kLastCodePoint) {
      return {value, 4};
    }
  }
  return {kInvalidByte, 1};
}

const UnicodeClasses& UnicodeClasses::table() {
  static const UnicodeClasses classes;
  return classes;
}

UnicodeClasses::UnicodeClasses()
    : classes_(kLastCodePoint + 1, static_cast<std::uint8_t>(CharClass::kOther)) {
  std::string all;
  all.reserve(std::size_t{4} * kLastCodePoint);
  for (std::uint32_t code_point = 0; code_point <= kLastCodePoint; ++code_point) {
    if (!is_surrogate(code_point)) {
      append_utf8(all, code_point);
    }
  }
  const auto fill = [&](const char* pattern, CharClass char_class) {
    for_each_match(pattern, all, [&](std::size_t begin, std::size_t end) {
      // The matched characters follow one another, but for the gap of the surrogates.
      std::uint32_t code_point = read_utf8(std::string_view(all).substr(begin)).code_point;
      for (std::size_t i = begin; i < end; ++i) {
        if (!is_continuation(static_cast<unsigned char>(all[i]))) {
          code_point = is_surrogate(code_point) ? 0xE000 : code_point;
          classes_[code_point++] = static_cast<std::uint8_t>(char_class);
        }
      }
    });
  };
  fill("\\p{L}+", CharClass::kLetter);
  fill("\\p{N}+", CharClass::kNumber);
  fill("[^\\S\\x{180e}]+", CharClass::kSpace);
}

}  // namespace trireme
