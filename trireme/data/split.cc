// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/data/split.h"

#include "trireme/data/unicode_classes.h"

namespace trireme {
namespace {

struct ClassedChar {
  CharClass char_class;
  std::size_t length;
};

constexpr std::array<CharClass, 128> ascii_classes() {
  std::array<CharClass, 128> classes{};
  for (std::size_t c = 0; c < classes.size(); ++c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    classes[c] = letter                 ? CharClass::kLetter
                 : c >= '0' && c <= '9' ? CharClass::kNumber
                 : space                ? CharClass::kSpace
                                        : CharClass::kOther;
  }
  return classes;
}
constexpr std::array<CharClass, 128> kAsciiClasses = ascii_classes();

ClassedChar char_at(std::string_view text, std::size_t at) {
  const auto byte = static_cast<unsigned char>(text[at]);
  if (byte < 0x80) {
    return {kAsciiClasses[byte], 1};
  }
  const Utf8Char read = read_utf8(text.substr(at));
  return {UnicodeClasses::table().of(read.code_point), read.length};
}

// The end of the run of char_class that goes through at.
std::size_t run_end(std::string_view text, std::size_t at, CharClass char_class) {
  while (at < text.size()) {
    const ClassedChar next = char_at(text, at);
    if (next.char_class != char_class) {
      break;
    }
    at += next.length;
  }
  return at;
}

// \s+(?!\S)|\s+ : the run but for its last character if something follows and it has another one.
std::size_t space_end(std::string_view text, std::size_t begin) {
  std::size_t last = begin;
  std::size_t at = begin;
  while (at < text.size()) {
    const ClassedChar next = char_at(text, at);
    if (next.char_class != CharClass::kSpace) {
      return last > begin ? last : at;
    }
    last = at;
    at += next.length;
  }
  return at;
}

}  // namespace

std::size_t word_end(std::string_view text, std::size_t begin) {
  if (text[begin] == '\'') {
    if (const std::size_t length = detail::contraction_length(text, begin); length != 0) {
      return begin + length;
    }
  }
  const std::size_t after_blank = begin + (text[begin] == ' ' ? 1 : 0);
  if (after_blank < text.size()) {
    const ClassedChar first = char_at(text, after_blank);
    if (first.char_class != CharClass::kSpace) {
      return run_end(text, after_blank + first.length, first.char_class);
    }
  }
  return space_end(text, begin);
}

namespace detail {

std::size_t contraction_length(std::string_view text, std::size_t at) {
  const auto letter = [text](std::size_t i) { return i < text.size() ? text[i] : '\0'; };
  const char first = letter(at + 1);
  const char second = letter(at + 2);
  switch (first) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return second == 'e' ? 3 : 0;
    case 'l':
      return second == 'l' ? 3 : 0;
    default:
      return 0;
  }
}

bool has_non_space(std::string_view text, std::size_t at) {
  return at < text.size() && char_at(text, at).char_class != CharClass::kSpace;
}

}  // namespace detail
}  // namespace trireme
