// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/data/tokenizer.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <thread>

#include "tests/data/texts.h"
#include "trireme/base/error.h"
#include "trireme/data/encoder.h"
#include "trireme/data/split.h"
#include "trireme/data/tokenizer_impl.h"

namespace trireme {
namespace {

constexpr std::string_view kSample =
    "It's the same story: we'll see what they've got. int main(int argc, char** argv) {\n"
    "    std::vector<int> numbers(argc, 42);\n    for (int i = 0; i < argc; ++i) {\n"
    "        numbers[i] += 1000 * i;\n    }\n    return numbers.size() == 42 ? 0 : 1;\n}\n"
    "  the quick brown fox, the lazy dog; ünïcödé 日本語 日本 日本語 and and and then the end\n";

Tokenizer train(std::string_view text, std::int64_t vocab_size, std::int64_t min_count = 2) {
  return train_tokenizer(std::array{text}, {.vocab_size = vocab_size, .min_pair_count = min_count});
}

std::vector<TokenId> encode(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<TokenId> ids;
  tokenizer.encode(text, ids);
  return ids;
}

RC_GTEST_PROP(Tokenizer, DecodesWhatItEncoded, ()) {
  static const Tokenizer tokenizer = train(kSample, 400);
  const std::string text = *rc::gen::oneOf(testing::text(), rc::gen::arbitrary<std::string>());
  const std::vector<TokenId> ids = encode(tokenizer, text);
  RC_ASSERT(tokenizer.decode(ids) == text);
  RC_ASSERT(std::find(ids.begin(), ids.end(), tokenizer.end_of_text()) == ids.end());
}

// Byte-pair encoding as its definition reads: the merge of lowest rank, leftmost first.
std::vector<TokenId> encode_naively(const Tokenizer& tokenizer, std::string_view text) {
  const std::vector<Merge>& merges = tokenizer.impl().parts.merges;
  std::vector<TokenId> ids;
  for (std::size_t begin = 0; begin < text.size();) {
    std::vector<TokenId> word;
    for (const std::size_t end = word_end(text, begin); begin < end; ++begin) {
      word.push_back(static_cast<unsigned char>(text[begin]));
    }
    const auto merge_one = [&] {
      for (const Merge& merge : merges) {
        for (std::size_t i = 0; i + 1 < word.size(); ++i) {
          if (word[i] == merge.left && word[i + 1] == merge.right) {
            word[i] = merge.merged;
            word.erase(word.begin() + static_cast<std::ptrdiff_t>(i) + 1);
            return true;
          }
        }
      }
      return false;
    };
    while (merge_one()) {
    }
    ids.insert(ids.end(), word.begin(), word.end());
  }
  return ids;
}

// Words long enough for the heap are compared as well as short ones for the scan.
RC_GTEST_PROP(Tokenizer, AppliesTheEarliestMergeFirst, ()) {
  static const Tokenizer tokenizer = train(kSample, 330);
  const auto alphabet =
      *rc::gen::elementOf(std::vector<std::string>{std::string(kSample), "theand"});
  const auto text = *rc::gen::container<std::string>(*rc::gen::inRange<std::size_t>(1, 130),
                                                     rc::gen::elementOf(alphabet));
  RC_ASSERT(encode(tokenizer, text) == encode_naively(tokenizer, text));
}

TEST(Tokenizer, EncodesWordsOfEveryLengthAlikeHotAndCold) {
  const std::string letters = [] {
    std::string text;
    for (int i = 0; i < 3000; ++i) {
      text += static_cast<char>('a' + (i * i + i / 7) % 5);
    }
    return text;
  }();
  const Tokenizer tokenizer = train(letters.substr(0, 700), 300);
  Encoder warm(tokenizer);
  for (int pass = 0; pass < 2; ++pass) {
    for (const std::size_t length : {1, 7, 8, 14, 15, 16, 17, 47, 48, 49, 255, 256, 257, 3000}) {
      const std::string word = letters.substr(0, length);
      std::vector<TokenId> ids;
      warm.encode(word, ids);
      Encoder cold(tokenizer);
      std::vector<TokenId> cold_ids;
      cold.encode(word + " ", cold_ids);  // the word is not at the end of the text here
      cold_ids.pop_back();
      EXPECT_EQ(ids, cold_ids) << length;
      EXPECT_EQ(tokenizer.decode(ids), word) << length;
    }
  }
}

// Quadratic work would take minutes here.
TEST(Tokenizer, AMegabyteWithoutABlankIsNoTrouble) {
  const Tokenizer tokenizer = train(kSample, 400);
  std::string text;
  for (int i = 0; i < (1 << 20); ++i) {
    text += "thenadlzyquick"[(i * 7 + i / 13) % 14];
  }
  EXPECT_EQ(tokenizer.decode(encode(tokenizer, text)), text);
}

TEST(Tokenizer, TextThatLooksSpecialIsPlainText) {
  const Tokenizer tokenizer = train(kSample, 300);
  const std::vector<TokenId> ids = encode(tokenizer, "a<|endoftext|>b");
  EXPECT_EQ(std::count(ids.begin(), ids.end(), tokenizer.end_of_text()), 0);
  EXPECT_EQ(tokenizer.decode(ids), "a<|endoftext|>b");
}

TEST(Tokenizer, AppendsAndDoesNotReplace) {
  const Tokenizer tokenizer = train(kSample, 300);
  std::vector<TokenId> ids = {7};
  tokenizer.encode("xyz", ids);
  EXPECT_EQ(ids.front(), 7U);
  EXPECT_EQ(tokenizer.decode(std::span(ids).subspan(1)), "xyz");
}

TEST(Tokenizer, RefusesIdsOutsideItsVocabulary) {
  const Tokenizer tokenizer = train(kSample, 300);
  ASSERT_EQ(tokenizer.vocab_size(), 300);
  EXPECT_NO_THROW(tokenizer.token_bytes(299));
  EXPECT_THROW(tokenizer.token_bytes(300), DataError);
  EXPECT_THROW(tokenizer.decode(std::array<TokenId, 2>{1, 300}), DataError);
}

TEST(Tokenizer, ManyThreadsEncodeAtOnce) {
  const Tokenizer tokenizer = train(kSample, 350);
  const std::vector<TokenId> expected = encode(tokenizer, kSample);
  std::vector<int> wrong(5, 0);
  {
    std::vector<std::jthread> threads;
    for (std::size_t t = 0; t < wrong.size(); ++t) {
      threads.emplace_back([&, t] {
        for (int pass = 0; pass < 50; ++pass) {
          wrong[t] += encode(tokenizer, kSample) != expected ? 1 : 0;
        }
      });
    }
  }
  EXPECT_EQ(wrong, std::vector<int>(5, 0));
}

TEST(Tokenizer, OutlivesAMoveWhileEncodersHoldIt) {
  Tokenizer tokenizer = train(kSample, 300);
  Encoder encoder(tokenizer);
  const Tokenizer moved = std::move(tokenizer);
  std::vector<TokenId> ids;
  encoder.encode("still here", ids);
  EXPECT_EQ(moved.decode(ids), "still here");
}

}  // namespace
}  // namespace trireme
