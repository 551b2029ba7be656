// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/data/split.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <rapidcheck/gtest.h>

#include <memory>
#include <stdexcept>

#include "tests/data/texts.h"
#include "trireme/data/unicode_classes.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using Words = std::vector<std::string>;

// GPT-2's pattern run by PCRE2. \s stands for Unicode's white space, to which U+180E does not
// belong any more.
class Pcre2Splitter {
 public:
  Pcre2Splitter()
      : code_(compile(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+)"
                      R"(| ?(?:[^\s\p{L}\p{N}]|\x{180e})+)"
                      R"(|[^\S\x{180e}]+(?![\S\x{180e}])|[^\S\x{180e}]+)"),
              &pcre2_code_free),
        match_(pcre2_match_data_create_from_pattern(code_.get(), nullptr), &pcre2_match_data_free) {
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);
  }

  Words operator()(std::string_view text) const {
    // Each invalid byte becomes one private-use character: neither letter, number nor space.
    std::string valid;
    std::vector<std::size_t> origin;  // of each byte of valid
    for (std::size_t at = 0; at < text.size();) {
      const Utf8Char read = read_utf8(text.substr(at));
      if (read.code_point == kInvalidByte) {
        valid += "\uE000";
      } else {
        valid += text.substr(at, read.length);
      }
      origin.resize(valid.size(), at);
      at += read.length;
    }
    origin.push_back(text.size());
    Words words;
    for (std::size_t at = 0; at < valid.size();) {
      const int count = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(valid.data()),
                                    valid.size(), at, PCRE2_ANCHORED, match_.get(), nullptr);
      if (count <= 0) {
        throw std::runtime_error("the pattern does not match everywhere");
      }
      const std::size_t end = pcre2_get_ovector_pointer(match_.get())[1];
      words.emplace_back(text.substr(origin[at], origin[end] - origin[at]));
      at = end;
    }
    return words;
  }

 private:
  static pcre2_code* compile(const char* pattern) {
    int error = 0;
    PCRE2_SIZE at = 0;
    return pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED,
                         PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr);
  }
  std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)> code_;
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match_;
};

Words split(std::string_view text) {
  Words words;
  split_words(text, [&](std::size_t begin, std::size_t end) {
    words.emplace_back(text.substr(begin, end - begin));
  });
  return words;
}

Words split_slowly(std::string_view text) {
  Words words;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = word_end(text, begin);
    words.emplace_back(text.substr(begin, end - begin));
    begin = end;
  }
  return words;
}

TEST(Split, FollowsGpt2sPattern) {
  EXPECT_THAT(split(""), ElementsAre());
  EXPECT_THAT(split("Hello world"), ElementsAre("Hello", " world"));
  EXPECT_THAT(split("it's we'll 'sound"), ElementsAre("it", "'s", " we", "'ll", " '", "sound"));
  EXPECT_THAT(split("'sound x''s"), ElementsAre("'s", "ound", " x", "''", "s"));
  EXPECT_THAT(split("a   b\n\n  c  "), ElementsAre("a", "  ", " b", "\n\n ", " c", "  "));
  EXPECT_THAT(split("a\n\tb"), ElementsAre("a", "\n", "\t", "b"));
  EXPECT_THAT(split("x86_64 == 3.5"), ElementsAre("x", "86", "_", "64", " ==", " 3", ".", "5"));
}

TEST(Split, InvalidBytesCountAsSymbols) {
  EXPECT_THAT(split("caf\xe9 au"), ElementsAre("caf", "\xe9", " au"));
  EXPECT_THAT(split("a !\xff\xfe!b"), ElementsAre("a", " !\xff\xfe!", "b"));
}

TEST(Split, TheUnicodeTablesPropertiesAreKnown) {
  const UnicodeClasses& classes = UnicodeClasses::table();
  EXPECT_EQ(classes.of('a'), CharClass::kLetter);
  EXPECT_EQ(classes.of(0xE000), CharClass::kOther);
  EXPECT_EQ(classes.of(0xD7FB), CharClass::kLetter);  // the last letters below the surrogates
  EXPECT_EQ(classes.of(0xF900), CharClass::kLetter);  // the first ones above
  EXPECT_EQ(classes.of(0x2167), CharClass::kNumber);  // roman eight
  EXPECT_EQ(classes.of(0x3000), CharClass::kSpace);
  EXPECT_EQ(classes.of(0x180E), CharClass::kOther);
  EXPECT_EQ(classes.of(0x20000), CharClass::kLetter);
  EXPECT_EQ(classes.of(0x10FFFF), CharClass::kOther);
  EXPECT_EQ(classes.of(kInvalidByte), CharClass::kOther);
}

RC_GTEST_PROP(Split, IsWhatPcre2Finds, ()) {
  static const Pcre2Splitter pcre2;
  const std::string text = *testing::text();
  RC_ASSERT(split(text) == pcre2(text));
  RC_ASSERT(split_slowly(text) == pcre2(text));
}

// Blocks of ASCII only, where nearly all of split_words' work is done, at every alignment of what
// is hard: apostrophes, runs of white space and ends at the border of a block.
RC_GTEST_PROP(Split, IsWhatPcre2FindsInBlocksOfAscii, ()) {
  static const Pcre2Splitter pcre2;
  const auto text =
      *rc::gen::container<std::string>(*rc::gen::inRange<std::size_t>(60, 400),
                                       rc::gen::elementOf(std::string("  \n\t''aslretvmd1.,")));
  RC_ASSERT(split(text) == pcre2(text));
}

// What follows a block decides its last bit.
RC_GTEST_PROP(Split, IsWhatPcre2FindsAtBlockBorders, ()) {
  static const Pcre2Splitter pcre2;
  const std::string filling(*rc::gen::inRange<std::size_t>(58, 66),
                            *rc::gen::elementOf(std::string("a .")));
  const std::string text = filling + *testing::text_piece() + *testing::text_piece() + filling;
  RC_ASSERT(split(text) == pcre2(text));
}

}  // namespace
}  // namespace trireme
